//! The provider: [`Dpif`] on top of flow table, ports, workers and threads.
//!
//! Kernel devices belong to forwarding threads, each queue to one of them; devices that must be polled, to PMD threads ([`crate::pmd`]).
//! Dummies are polled by [`Dpif::run`] on the main loop, to the end, so that a test that injects a packet sees all of its effects when it has called `run` once.
//!
//! Packets that the control plane sends itself (`execute`) go through a worker of their own, out of a small pool, so
//! that an upcall handler may send packets while it is being called by a worker.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ib_base::time::Clock;
use ib_base::vlog::Level;
use ib_base::vlog::module::{DPIF_NETDEV, DPIF_NETDEV_EXTRACT, DPIF_NETDEV_IMPL};
use ib_base::{vlog_err, vlog_once};
use ib_dpif::meter::{MeterConfig, MeterStats};
use ib_dpif::{
    DpStats, Dpif, DpifClass, DpifError, Execute, FlowDel, FlowInfo, FlowPut, FlowStats, LastStats,
    PortDevice, PortInfo, PortSpec, Ufid, UpcallHandler,
};
use ib_flow::OdpPort;
use ib_netdev::qos::{POLICING_KEY, Policing, Shaping};
use ib_netdev::{Flags, Netdev, Registry};
use ib_packet::Batch;
use ib_packet::buffer::BATCH_MAX;
use parking_lot::{Mutex, RwLock};

use crate::drop::DropCounters;
use crate::megaflow::Megaflow;
use crate::offload::Maker;
use crate::pmd::config::{PortSettings, Settings};
use crate::pmd::numa::Topology;
use crate::pmd::{PmdSet, PmdView};
use crate::poller::{Polled, Rx, poll};
use crate::ports::{MAX_PORTS, Port};
use crate::stats::{Totals, WorkerStats};
use crate::table::FlowTable;
use crate::thread::{Forwarder, done_channel};
use crate::worker::{Shared, Worker};

/// Flows that a datapath has room for.
pub const MAX_FLOWS: usize = 1_000_000;
/// Packets that one `run` handles before it lets the main loop do something else.
const RUN_PACKETS: usize = 100_000;
/// Workers for `execute` that are kept.
const SPARE_WORKERS: usize = 2;
/// How long a removal waits for a forwarding thread to let go of the device.
const REMOVE_WAIT: Duration = Duration::from_millis(50);

/// How to build a datapath.
#[derive(Clone)]
pub struct Config {
    /// Devices.
    pub registry: Arc<Registry>,
    /// Time.
    pub clock: Clock,
    /// Forwarding threads; at least one.
    pub threads: usize,
    /// Ports are dummies: internal ones are `dummy-internal`, and port numbers follow names.
    pub dummy: bool,
}

/// What the main loop polls: queues of ordinary dummies by the main worker, those of PMD dummies by workers that stand for
/// PMD threads, so that tests with such ports are as deterministic as the others; and it rules the real PMD threads.
struct MainLoop {
    queues: Vec<Rx>,
    worker: Worker,
    pmds: PmdSet,
}

/// A user-space datapath.
pub struct DpUserspace {
    kind: &'static str,
    name: String,
    config: Config,
    shared: Arc<Shared>,
    main: Mutex<MainLoop>,
    /// Queues on their way to the main loop, and ports whose queues it shall drop.
    main_inbox: Mutex<Vec<MainMessage>>,
    main_stats: Arc<WorkerStats>,
    /// Counters but those of PMD threads when they were last cleared.
    cleared: Mutex<Totals>,
    /// Settings in force; `None` before the first.
    settings: Mutex<Option<Settings>>,
    /// Threads and queues are not what the settings say any more.
    pmds_dirty: AtomicBool,
    spare: Mutex<Vec<Worker>>,
    spare_stats: Mutex<Vec<Arc<WorkerStats>>>,
    threads: RwLock<Vec<Forwarder>>,
    /// Serializes port changes.
    port_changes: Mutex<()>,
    seen_changes: AtomicU64,
    /// Ports whose number of queues is a matter of configuration.
    pmd_ports: Mutex<Vec<OdpPort>>,
}

enum MainMessage {
    /// A queue for the main loop itself.
    Add(Rx),
    /// A queue for a PMD thread, the NUMA node of its device, and whether the main loop takes that thread's turns.
    AddPmd(Rx, u32, bool),
    Remove(OdpPort),
}

fn os_error(what: String, e: &ib_netdev::Error) -> DpifError {
    DpifError::Os(e.errno(), what)
}

impl DpUserspace {
    /// An empty datapath; its local port is the class's business.
    pub fn new(kind: &'static str, name: &str, config: Config) -> DpUserspace {
        vlog_once!(DPIF_NETDEV_EXTRACT, Level::Info, "Default MFEX Extract implementation is scalar.");
        vlog_once!(DPIF_NETDEV_IMPL, Level::Info, "Default DPIF implementation is dpif_scalar.");
        let shared = Arc::new(Shared::new(config.clock.clone(), MAX_FLOWS));
        let main_stats = Arc::new(WorkerStats::default());
        let now = config.clock.now();
        let main = MainLoop {
            queues: Vec::new(),
            worker: Worker::new(&shared, &main_stats, 0).cache_all(),
            pmds: PmdSet::new(Arc::new(Topology::discover()), now),
        };
        DpUserspace {
            kind,
            name: name.to_owned(),
            main: Mutex::new(main),
            main_inbox: Mutex::new(Vec::new()),
            main_stats,
            cleared: Mutex::new(Totals::default()),
            settings: Mutex::new(None),
            pmds_dirty: AtomicBool::new(false),
            spare: Mutex::new(Vec::new()),
            spare_stats: Mutex::new(Vec::new()),
            threads: RwLock::new(Vec::new()),
            port_changes: Mutex::new(()),
            pmd_ports: Mutex::new(Vec::new()),
            seen_changes: AtomicU64::new(config.registry.seq()),
            config,
            shared,
        }
    }

    /// The same, with these cores for PMD threads instead of the system's.
    pub fn with_topology(self, topology: &Arc<Topology>) -> DpUserspace {
        self.main.lock().pmds.set_topology(Arc::clone(topology));
        self
    }

    /// Flow table, for commands that show its inside.
    pub fn table(&self) -> &Arc<FlowTable> {
        &self.shared.table
    }
    /// What the workers share: meters, drop counters, tunables.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    /// Drops by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.shared.drops
    }
    /// Whether its ports are dummies.
    pub fn is_dummy(&self) -> bool {
        self.config.dummy
    }
    /// The ports themselves.
    pub fn port_list(&self) -> Vec<Arc<Port>> {
        self.shared.ports.list()
    }

    /// Sets how many new microflows there are to one that enters the exact-match cache; 0 turns the cache off.
    pub fn set_emc_insert_inv_prob(&self, inv_prob: u32) {
        self.shared.emc_insert_inv_prob.store(inv_prob, Ordering::Relaxed);
    }

    /// Counters by worker: the main loop (with those that send for the control plane) first, then the threads.
    pub fn worker_totals(&self) -> (Totals, Vec<Totals>) {
        let mut main = self.main_stats.read();
        for s in self.spare_stats.lock().iter() {
            main.add(&s.read());
        }
        (main, self.threads.read().iter().map(|t| t.stats().read()).collect())
    }

    fn info_of(&self, flow: &Megaflow) -> FlowInfo {
        let info = flow.info();
        if self.shared.offload.is_told() {
            return info;
        }
        FlowInfo { offloaded: false, dp_layer: "ovs", ..info }
    }

    fn all_but_pmd(&self) -> Totals {
        let (mut sum, threads) = self.worker_totals();
        threads.iter().for_each(|t| sum.add(t));
        // What the accelerator forwards it finds by whole keys, as the exact-match cache does.
        self.shared.offload.sync();
        let accelerated = self.shared.offload.packets();
        sum.received += accelerated;
        sum.emc_hits += accelerated;
        sum
    }

    fn totals(&self) -> Totals {
        let mut sum = self.all_but_pmd();
        // Out of an upcall on the main loop its own counters cannot be had; nobody asks for them there.
        if let Some(main) = self.main.try_lock() {
            sum.add(&main.pmds.totals());
        }
        sum
    }

    /// Counters of the main loop and the forwarding threads since they were cleared.
    pub fn main_totals(&self) -> Totals {
        self.all_but_pmd().since(&self.cleared.lock())
    }

    /// Starts the displayed counters anew, of the PMD thread on `core` or all; the datapath's own go on.
    pub fn clear_totals(&self, core: Option<u32>) {
        if core.is_none() {
            *self.cleared.lock() = self.all_but_pmd();
        }
        self.main.lock().pmds.clear(core, self.config.clock.now());
    }

    /// The PMD threads there are, by core, with their load over the last `secs` seconds.
    pub fn pmds(&self, secs: u32) -> Vec<PmdView> {
        self.refresh();
        self.main.lock().pmds.views(secs)
    }

    /// Settings in force.
    pub fn settings(&self) -> Settings {
        self.settings.lock().clone().unwrap_or_default()
    }

    /// The bonds whose members it chooses, as `dpif-netdev/bond-show` prints them.
    pub fn show_bonds(&self) -> String {
        self.shared.bonds.show()
    }

    /// Has this accelerator, instead of the kernel's, take hot flows, from now on and whatever kind of ports there are.
    pub fn set_accelerator(&self, make: Maker) {
        self.shared.offload.set_on(false);
        self.shared.offload.set_maker(make);
        self.shared.offload.set_on(true);
        let _serial = self.port_changes.lock();
        self.shared.offload.sync_ports(&self.shared.ports.list());
    }

    /// What the accelerator does, as `accel/show` prints it; `each`: flow by flow.
    pub fn show_offload(&self, each: bool) -> String {
        let mut flows = Vec::new();
        self.shared.table.dump(&mut |f| flows.push(Arc::clone(f)));
        format!("{}:\n{}", self.full_name(), self.shared.offload.show(&flows, each))
    }

    /// Has queues shared out among the PMD threads anew.
    pub fn rebalance(&self) {
        self.pmds_dirty.store(true, Ordering::Relaxed);
    }

    /// Takes over what has changed about ports and settings.
    fn refresh(&self) {
        self.reconfigure();
        if let Some(mut main) = self.main.try_lock() {
            self.take_messages(&mut main);
            self.reconfigure_pmds(&mut main);
        }
    }

    fn reconfigure_pmds(&self, main: &mut MainLoop) {
        if !self.pmds_dirty.swap(false, Ordering::Relaxed) {
            return;
        }
        let settings = self.settings();
        let pin = |number, qid: usize| {
            let port = self.shared.ports.get(number)?;
            port.settings.lock().affinity.get(&qid).copied()
        };
        main.pmds.reconfigure(&self.shared, &settings, &pin);
    }

    /// Kernel devices go to threads, dummies to the main loop.
    fn polled_by_main(&self, netdev: &dyn Netdev) -> bool {
        self.config.dummy || netdev.as_dummy().is_some()
    }

    fn distribute(
        &self,
        number: OdpPort,
        netdev: &dyn Netdev,
        queues: Vec<Box<dyn ib_netdev::RxQueue>>,
    ) -> Result<(), DpifError> {
        let emc = self.shared.ports.get(number).map(|p| Arc::clone(&p.emc)).unwrap_or_default();
        let rx = |queue| Rx { port: number, name: netdev.name().to_owned(), queue, emc: Arc::clone(&emc) };
        let by_main = self.polled_by_main(netdev);
        if by_main || netdev.is_pmd() {
            let node = netdev.numa_id().unwrap_or(0);
            let message = |q| match netdev.is_pmd() {
                true => MainMessage::AddPmd(rx(q), node, by_main),
                false => MainMessage::Add(rx(q)),
            };
            self.main_inbox.lock().extend(queues.into_iter().map(message));
            self.pmds_dirty.store(true, Ordering::Relaxed);
            if !by_main && let Some(mut main) = self.main.try_lock() {
                self.take_messages(&mut main);
                self.reconfigure_pmds(&mut main);
            }
            return Ok(());
        }
        let mut threads = self.threads.write();
        if threads.is_empty() && !queues.is_empty() {
            for i in 0..self.config.threads.max(1) {
                let thread = Forwarder::spawn(&self.shared, i).map_err(|e| {
                    DpifError::Os(e.raw_os_error().unwrap_or(12), format!("forwarding thread: {e}"))
                })?;
                threads.push(thread);
            }
        }
        for queue in queues {
            // Queue n of port p: neighbouring queues and neighbouring ports go to different threads.
            let at = (number.0 as usize + queue.queue_id()) % threads.len();
            threads[at].add(rx(queue));
        }
        Ok(())
    }

    /// Has everyone drop the queues of a port.
    fn recall(&self, number: OdpPort, netdev: &dyn Netdev) {
        if netdev.is_pmd() || self.polled_by_main(netdev) {
            self.main_inbox.lock().push(MainMessage::Remove(number));
            // Now, if the main loop is not at it; else it does so itself when it is done.
            if let Some(mut main) = self.main.try_lock() {
                self.take_messages(&mut main);
            }
            return;
        }
        let threads = self.threads.read();
        let (done, wait) = done_channel(threads.len());
        threads.iter().for_each(|t| t.remove(number, done.clone()));
        for _ in 0..threads.len() {
            // A thread that is in an upcall may be waiting for our caller: do not wait for ever.
            if wait.recv_timeout(REMOVE_WAIT).is_err() {
                break;
            }
        }
    }

    fn take_messages(&self, main: &mut MainLoop) {
        for message in std::mem::take(&mut *self.main_inbox.lock()) {
            match message {
                MainMessage::AddPmd(rx, numa_id, by_main) => main.pmds.add(rx, numa_id, by_main),
                MainMessage::Add(rx) => {
                    let after = main.queues.partition_point(|q| q.port <= rx.port);
                    main.queues.insert(after, rx);
                }
                MainMessage::Remove(port) => {
                    main.queues.retain(|q| q.port != port);
                    main.pmds.remove(port);
                    self.pmds_dirty.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Reopens ports whose number of queues was changed by configuration.
    fn reconfigure(&self) {
        let seq = self.config.registry.seq();
        if self.seen_changes.swap(seq, Ordering::Relaxed) == seq {
            return;
        }
        let _serial = self.port_changes.lock();
        self.shared.offload.sync_ports(&self.shared.ports.list());
        let pmd_ports = self.pmd_ports.lock().clone();
        for port in pmd_ports.iter().filter_map(|n| self.shared.ports.get(*n)) {
            let queues_seq = port.netdev.queues_seq();
            let now = (port.netdev.n_rxq(), port.netdev.numa_id(), queues_seq);
            if now == (port.n_rxq, port.numa_id, port.queues_seq) {
                continue;
            }
            self.recall(port.number, &*port.netdev);
            let queues = port.netdev.rx_queues().unwrap_or_else(|e| {
                ib_base::vlog_err!(
                    DPIF_NETDEV,
                    "Failed to set interface {} new configuration ({e})",
                    port.netdev.name()
                );
                Vec::new()
            });
            let n = if queues.is_empty() { port.netdev.n_rxq() } else { queues.len() };
            let new = port.succeed(port.number, n, queues_seq);
            self.shared.ports.replace(Arc::new(new));
            if let Err(e) = self.distribute(port.number, &*port.netdev, queues) {
                ib_base::vlog_err!(DPIF_NETDEV, "{}: {}", port.netdev.name(), e);
            }
        }
    }

    /// `dpif-dummy/change-port-number`: gives a port another number.
    pub fn change_port_number(&self, name: &str, number: &str) -> Result<(), &'static str> {
        let _serial = self.port_changes.lock();
        let port = self.shared.ports.by_name(name).ok_or("unknown port")?;
        let number = number.parse().ok().filter(|n| (1..MAX_PORTS).contains(n)).map(OdpPort);
        let number = number.ok_or("bad port number")?;
        if self.shared.ports.get(number).is_some() {
            return Err("port number already in use");
        }
        self.shared.ports.remove(port.number);
        self.pmd_ports.lock().retain(|n| *n != port.number);
        self.recall(port.number, &*port.netdev);
        let queues_seq = port.netdev.queues_seq();
        let queues = port.netdev.rx_queues().unwrap_or_default();
        let new = Arc::new(port.succeed(number, queues.len(), queues_seq));
        if port.netdev.is_pmd() {
            self.pmd_ports.lock().push(number);
        }
        let added =
            self.shared.ports.insert(new).and_then(|()| self.distribute(number, &*port.netdev, queues));
        added.map_err(|_| "port number already in use")
    }

    fn with_spare<R>(&self, f: impl FnOnce(&mut Worker) -> R) -> R {
        let spare = self.spare.lock().pop();
        let mut worker = spare.unwrap_or_else(|| {
            let stats = Arc::new(WorkerStats::default());
            self.spare_stats.lock().push(Arc::clone(&stats));
            Worker::new(&self.shared, &stats, 0)
        });
        let out = f(&mut worker);
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_WORKERS {
            spare.push(worker);
        } else {
            // It goes, its counts stay with one that lives as long as the datapath.
            let counts = Arc::clone(worker.stats());
            drop(worker);
            let mut all = self.spare_stats.lock();
            all.retain(|s| !Arc::ptr_eq(s, &counts));
            drop(all);
            self.main_stats.absorb(&counts.read());
        }
        out
    }
}

/// Empties the queues, up to a limit; how many packets that was.
fn poll_all(queues: &mut [Rx], worker: &mut Worker, batch: &mut Batch) -> usize {
    let mut n = 0;
    for rx in queues {
        while n < RUN_PACKETS
            && let Polled::Packets(got) = poll(worker, rx, batch)
        {
            // A batch that was lost to a panic counts as progress, too.
            n += got.max(1);
        }
    }
    n
}

impl Dpif for DpUserspace {
    fn kind(&self) -> &str {
        self.kind
    }
    fn names_threads(&self) -> bool {
        self.kind() != "system" || self.config.dummy
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn version(&self) -> String {
        "<built-in>".to_owned()
    }

    fn run(&self) -> bool {
        let swept = self.shared.conntrack.sweep(self.shared.clock.now().as_ms());
        if swept.lost_fragments > 0 {
            self.shared.drops.add(crate::drop::DropReason::Conntrack, swept.lost_fragments as u64);
        }
        self.reconfigure();
        // Re-entered out of an upcall: the outer call goes on with what is there.
        let Some(mut main) = self.main.try_lock() else { return false };
        self.take_messages(&mut main);
        self.reconfigure_pmds(&mut main);
        main.pmds.keep_history(self.config.clock.now());
        let MainLoop { queues, worker, pmds } = &mut *main;
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut total = 0;
        loop {
            let mut round = poll_all(queues, worker, &mut batch);
            round += pmds.run(&mut batch, RUN_PACKETS);
            total += round;
            if round == 0 || total > RUN_PACKETS {
                break;
            }
        }
        self.main_stats.iterations.add(1);
        if total > 0 {
            self.main_stats.busy_iterations.add(1);
        }
        self.take_messages(&mut main);
        total > 0 || swept.more
    }

    fn stats(&self) -> DpStats {
        let t = self.totals();
        DpStats {
            hits: t.hits(),
            misses: t.upcalls_ok,
            lost: t.upcalls_failed,
            flows: self.shared.table.len() as u64,
            mask_hits: None,
            masks: None,
            cache_hits: None,
        }
    }

    fn port_add(&self, spec: &PortSpec) -> Result<OdpPort, DpifError> {
        let _serial = self.port_changes.lock();
        if self.shared.ports.by_name(&spec.name).is_some() {
            return Err(DpifError::Exists(format!("{}: port exists already", spec.name)));
        }
        let number = self.shared.ports.choose(&spec.name, spec.number, self.config.dummy)?;
        let failed =
            |e: &ib_netdev::Error| os_error(format!("could not open network device {} ({e})", spec.name), e);
        let netdev = self.config.registry.open(&spec.name, &spec.kind).map_err(|e| failed(&e))?;
        let flags = netdev.flags().unwrap_or(Flags::NONE);
        if flags.contains(Flags::LOOPBACK) {
            let why = format!("{}: cannot add a loopback device", spec.name);
            vlog_err!(DPIF_NETDEV, "{why}");
            return Err(DpifError::Os(ib_sys::errno::EINVAL, why));
        }
        let queues_seq = netdev.queues_seq();
        let queues = match netdev.rx_queues() {
            Ok(queues) => queues,
            Err(ib_netdev::Error::Unsupported) => Vec::new(),
            Err(e) => return Err(failed(&e)),
        };
        let was = netdev.update_flags(Flags::NONE, Flags::PROMISC);
        let port = Port {
            number,
            kind: spec.kind.clone(),
            netdev: Arc::clone(&netdev),
            n_rxq: queues.len(),
            numa_id: netdev.numa_id(),
            queues_seq,
            emc: Arc::new(AtomicBool::new(true)),
            settings: Mutex::default(),
            made_promiscuous: was.is_ok_and(|f| !f.contains(Flags::PROMISC)).into(),
            tunnel_seq: 0.into(),
            tunnel_ip_id: 0.into(),
            mtu: 0.into(),
        };
        self.shared.ports.insert(Arc::new(port))?;
        if let Err(e) = self.distribute(number, &*netdev, queues) {
            self.shared.ports.remove(number);
            return Err(e);
        }
        if netdev.is_pmd() {
            self.pmd_ports.lock().push(number);
        }
        if let Some(port) = self.shared.ports.get(number) {
            self.shared.offload.port_came(&port);
        }
        Ok(number)
    }

    fn port_del(&self, number: OdpPort) -> Result<(), DpifError> {
        let _serial = self.port_changes.lock();
        self.shared.offload.port_gone(number);
        let port = self.shared.ports.remove(number);
        let port = port.ok_or_else(|| DpifError::NotFound(format!("port {number} not found")))?;
        self.pmd_ports.lock().retain(|n| *n != number);
        self.recall(number, &*port.netdev);
        Ok(())
    }

    fn ports(&self) -> Vec<PortInfo> {
        self.shared.ports.list().iter().map(|p| p.info()).collect()
    }
    fn port_by_name(&self, name: &str) -> Option<PortInfo> {
        self.shared.ports.by_name(name).map(|p| p.info())
    }

    fn port_config(&self, port: OdpPort) -> BTreeMap<String, String> {
        // The options of other devices are shown with their rows.
        let shown = |p: &Arc<Port>| p.netdev.as_dummy().is_some() || p.netdev.is_pmd();
        let port = self.shared.ports.get(port).filter(shown);
        port.map(|p| p.netdev.config()).unwrap_or_default()
    }

    fn port_device(&self, port: OdpPort) -> Option<PortDevice> {
        let port = self.shared.ports.get(port)?;
        let config = port.netdev.config().into_iter().collect();
        Some(PortDevice { counters: crate::ports::counters(&*port.netdev), config })
    }

    fn flow_put(&self, put: &FlowPut<'_>) -> Result<(), DpifError> {
        self.shared.table.put(put).map(|_| ())
    }
    fn flow_del(&self, del: &FlowDel<'_>) -> Result<FlowStats, DpifError> {
        self.shared.table.del(del).map(|(stats, _)| stats)
    }
    fn flow_retire(&self, del: &FlowDel<'_>) -> Result<LastStats, DpifError> {
        self.shared.table.del(del)
    }
    fn flow_get(&self, get: &FlowDel<'_>) -> Result<FlowInfo, DpifError> {
        self.shared.offload.sync();
        self.shared.table.get(get).map(|f| self.info_of(&f))
    }
    fn flow_dump(&self, visit: &mut dyn FnMut(FlowInfo)) {
        self.shared.offload.sync();
        self.shared.table.dump(&mut |f| visit(self.info_of(f)));
    }
    fn flow_stats(&self, visit: &mut dyn FnMut(Ufid, FlowStats)) {
        self.shared.offload.sync();
        self.shared.table.dump(&mut |f| visit(f.ufid(), f.stats()));
    }
    fn flow_flush(&self) {
        self.shared.table.flush();
    }

    fn meter_set(&self, id: u32, config: &MeterConfig) -> Result<(), DpifError> {
        self.shared.meters.set(id, config.clone(), self.config.clock.now().as_ms())
    }
    fn meter_stats(&self, id: u32) -> Result<MeterStats, DpifError> {
        self.shared.meters.stats(id)
    }
    fn meter_del(&self, id: u32) -> Result<MeterStats, DpifError> {
        self.shared.meters.del(id)
    }

    fn has_bonds(&self) -> bool {
        true
    }
    fn bond_set(&self, id: u32, ports: &[OdpPort]) -> Result<(), DpifError> {
        self.shared.bonds.set(id, ports)
    }
    fn bond_bytes(&self, id: u32) -> Result<Vec<u64>, DpifError> {
        self.shared.bonds.bytes(id)
    }
    fn bond_del(&self, id: u32) -> Result<(), DpifError> {
        self.shared.bonds.del(id)
    }

    fn set_config(&self, other_config: &BTreeMap<String, String>) {
        ib_netdev::vhost::set_socket_dir(other_config.get("vhost-sock-dir").map(String::as_str));
        let new = Settings::read(other_config);
        let old = self.settings.lock().replace(new.clone());
        if old.as_ref() == Some(&new) {
            return;
        }
        new.log_changes(old.as_ref());
        self.shared.emc_insert_inv_prob.store(new.emc_insert_inv_prob, Ordering::Relaxed);
        self.shared.smc.store(new.smc, Ordering::Relaxed);
        self.shared.offload.set_told(new.accelerate_told);
        if !self.config.dummy && self.shared.offload.set_on(new.accelerate) {
            let _serial = self.port_changes.lock();
            self.shared.offload.sync_ports(&self.shared.ports.list());
        }
        let sleeps = |s: &Settings| (s.sleep_us, s.core_sleep_us.clone());
        if old.as_ref().map(sleeps) != Some(sleeps(&new)) {
            let main = self.main.lock();
            main.pmds.log_sleeps(&new);
            main.pmds.set_sleeps(&new);
        }
        let places = |s: &Settings| (s.cpu_mask.clone(), s.assign, s.isolate);
        if old.as_ref().map(places) != Some(places(&new)) {
            self.pmds_dirty.store(true, Ordering::Relaxed);
        }
    }

    fn port_set_config(
        &self,
        number: OdpPort,
        other_config: &BTreeMap<String, String>,
    ) -> Result<(), DpifError> {
        let port = self.shared.ports.get(number);
        let port = port.ok_or_else(|| DpifError::NotFound(format!("port {number} not found")))?;
        let name = port.netdev.name();
        if let Some(policing) = other_config.get(POLICING_KEY).and_then(|text| Policing::parse(text)) {
            // Devices that cannot police are many, and nobody complains of them.
            let _ = port.netdev.set_policing(&policing);
        }
        let new = PortSettings::read(other_config)
            .ok_or_else(|| DpifError::Invalid(format!("{name}: pmd-rxq-affinity cannot be read")))?;
        // Devices that shall not shape need not be able to. The rest of the settings counts all the same.
        let shaped = Shaping::parse(other_config).map_or(Ok(()), |shaping| {
            let mut complain = |what: &str| ib_base::vlog_warn!(DPIF_NETDEV, "interface {name}: {what}");
            let applied = shaping.apply(&*port.netdev, &mut complain);
            if shaping.kind.is_empty() { Ok(()) } else { applied }
        });
        let shaped = shaped.map_err(|e| DpifError::Os(e.errno(), format!("{name}: {e}")));
        let old = std::mem::replace(&mut *port.settings.lock(), new.clone());
        if old == new {
            return shaped;
        }
        new.log_changes(&old, name, port.netdev.is_pmd());
        port.emc.store(new.emc, Ordering::Relaxed);
        if port.netdev.is_pmd() && (old.affinity != new.affinity || old.hash_steering != new.hash_steering) {
            self.pmds_dirty.store(true, Ordering::Relaxed);
        }
        shaped
    }

    fn execute(&self, execute: Execute<'_>) -> Result<(), DpifError> {
        if execute.probe {
            return Ok(());
        }
        self.with_spare(|w| w.execute(execute.packet, execute.md.clone(), execute.actions));
        Ok(())
    }

    fn set_upcall_handler(&self, handler: Option<Arc<dyn UpcallHandler>>) {
        self.shared.handler.store(handler.map(Arc::new));
    }
    fn conntrack(&self) -> Option<&dyn ib_dpif::conntrack::CtControl> {
        Some(&self.shared.conntrack)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The kinds of user-space datapaths: `netdev`, and with dummies enabled `dummy` (or all kinds, overridden).
pub struct DpUserspaceClass {
    kind: &'static str,
    config: Config,
    topology: Arc<Topology>,
    open: Mutex<BTreeMap<String, Arc<DpUserspace>>>,
}

impl DpUserspaceClass {
    /// A class of this kind.
    pub fn new(kind: &'static str, config: Config) -> DpUserspaceClass {
        let topology = Arc::new(Topology::discover());
        DpUserspaceClass { kind, config, topology, open: Mutex::new(BTreeMap::new()) }
    }

    /// The same, with these cores for PMD threads instead of the system's.
    pub fn with_topology(self, topology: &Arc<Topology>) -> DpUserspaceClass {
        DpUserspaceClass { topology: Arc::clone(topology), ..self }
    }

    /// All open datapaths of this class, by name.
    pub fn all(&self) -> Vec<Arc<DpUserspace>> {
        self.enumerate().iter().filter_map(|name| self.get(name)).collect()
    }

    /// A datapath of this class by name, as its own type.
    pub fn get(&self, name: &str) -> Option<Arc<DpUserspace>> {
        self.open.lock().get(name).cloned()
    }
}

impl DpifClass for DpUserspaceClass {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn enumerate(&self) -> Vec<String> {
        self.open.lock().keys().cloned().collect()
    }
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        let mut open = self.open.lock();
        if let Some(dp) = open.get(name) {
            return Ok(Arc::clone(dp) as Arc<dyn Dpif>);
        }
        if !create {
            return Err(DpifError::Os(19, format!("{}@{name}: no such datapath", self.kind)));
        }
        let dp = DpUserspace::new(self.kind, name, self.config.clone());
        let dp = Arc::new(dp.with_topology(&self.topology));
        dp.port_add(&PortSpec {
            name: name.to_owned(),
            kind: self.port_open_kind("internal"),
            number: Some(OdpPort::LOCAL),
            ..PortSpec::default()
        })?;
        open.insert(name.to_owned(), Arc::clone(&dp));
        Ok(dp)
    }
    fn destroy(&self, name: &str) -> Result<(), DpifError> {
        let dp = self.open.lock().remove(name);
        let dp = dp.ok_or_else(|| DpifError::Os(19, format!("{}@{name}: no such datapath", self.kind)))?;
        for port in dp.ports() {
            // Whoever still holds the datapath finds it empty.
            let _ = dp.port_del(port.number);
        }
        dp.flow_flush();
        Ok(())
    }
    fn port_open_kind(&self, interface_type: &str) -> String {
        match interface_type {
            "" => "system",
            "internal" if self.config.dummy => "dummy-internal",
            "internal" => "tap",
            other => other,
        }
        .to_owned()
    }
}
