//! One datapath with the bridges on it.
//!
//! A `Backer` owns the provider, the snapshot that translation reads, recirculation ids and the flows that
//! were installed. It outlives no bridge and is shared by datapath threads (upcalls), the main thread and
//! revalidation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ib_base::time::Clock;
use ib_base::vlog::module::OFPROTO_DPIF_UPCALL;
use ib_base::vlog_info;
use ib_dpif::{Departed, Dpif};
use ib_rcu::Published;
use ib_tunnel::World;
use parking_lot::{Mutex, RwLock};

use crate::change::Changes;
use crate::features::Features;
use crate::likeness::Likeness;
use crate::recirc::RecircIds;
use crate::revalidate::RevalidatorState;
use crate::tunnel::TunnelUsers;
use crate::ukey::{Ukey, Ukeys};
use crate::xcfg::XlateConfig;

/// Most datapath flows unless configured (`flow-limit`).
pub const DEFAULT_FLOW_LIMIT: u32 = 200_000;

/// Settings of `Open_vSwitch other_config` that concern datapath flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most datapath flows.
    pub flow_limit: u32,
    /// Idle time after which a datapath flow goes, ms.
    pub max_idle_ms: u64,
    /// Longest time between revalidation rounds, ms.
    pub max_revalidator_ms: u64,
    /// Packets a second that make revalidating a flow worth it.
    pub min_revalidate_pps: u64,
    /// Handler threads to report.
    pub n_handlers: u32,
    /// Revalidator threads to report.
    pub n_revalidators: u32,
    /// Time after which an OpenFlow bundle that nothing happens to is discarded, ms.
    pub bundle_idle_ms: u64,
    /// Prefer to tell dropped packets apart (`explicit-sampled-drops`).
    pub explicit_sampled_drops: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            flow_limit: DEFAULT_FLOW_LIMIT,
            max_idle_ms: 10_000,
            max_revalidator_ms: 500,
            bundle_idle_ms: 10_000,
            min_revalidate_pps: 5,
            n_handlers: 1,
            n_revalidators: 1,
            explicit_sampled_drops: false,
        }
    }
}

impl Settings {
    /// Sets the numbers of threads from those asked for (0: not) and that of processors, as in `ovs-vswitchd.conf.db(5)`. We
    /// report and log them, and have threads as we need them.
    pub fn set_threads(&mut self, handlers: u32, revalidators: u32, processors: u32) {
        let threads = processors.max(2);
        let rest = |taken: u32| threads.saturating_sub(taken).max(1);
        self.n_revalidators = match (revalidators, handlers) {
            (0, 0) => threads / 4 + 1,
            (0, handlers) => rest(handlers),
            (n, _) => n,
        };
        self.n_handlers = if handlers == 0 { rest(self.n_revalidators) } else { handlers };
    }
}

/// A removed flow, and who knows what it has counted in the end.
pub(crate) type Leaving = (Arc<Ukey>, Box<dyn Departed>);

/// See the module's description.
pub struct Backer {
    /// `netdev`, `system`, `dummy`.
    pub kind: String,
    /// The provider.
    pub dpif: Arc<dyn Dpif>,
    /// The clock.
    pub clock: Clock,
    /// What translation reads.
    pub xcfg: Published<XlateConfig>,
    /// Told by whatever may change a translation's result.
    pub changed: Arc<Changes>,
    /// What the provider can do.
    pub features: RwLock<Arc<Features>>,
    /// What the provider could do when it was opened.
    pub boot_features: Arc<Features>,
    /// Ids of the provider's meters in use, by all bridges.
    pub meter_ids: Mutex<BTreeSet<u32>>,
    /// Recirculation ids.
    pub recirc: RecircIds,
    /// Installed flows.
    pub ukeys: Ukeys,
    /// Removed flows whose last packets are still under way.
    pub(crate) leaving: Mutex<Vec<Leaving>>,
    /// What they have in common.
    pub(crate) likeness: Likeness,
    /// Revalidation.
    pub reval: Mutex<RevalidatorState>,
    /// Rounds of revalidation that began.
    pub round: AtomicU64,
    /// Networks under tunnels.
    pub world: Arc<World>,
    /// Who uses which tunnel ports of the datapath.
    pub tunnels: Mutex<TunnelUsers>,
    /// Settings.
    pub settings: RwLock<Settings>,
    /// The numbers of threads were logged.
    threads_told: AtomicBool,
    /// The limit that revalidation found sustainable.
    pub flow_limit: AtomicU32,
    /// `upcall/disable-megaflows` unsets it.
    pub megaflows: AtomicBool,
    /// `upcall/disable-ufid` unsets it.
    pub use_ufid: AtomicBool,
    /// `revalidator/pause` sets it: no rounds until `revalidator/resume`.
    pub paused: AtomicBool,
    /// OpenFlow tables are being restored: no rounds, and no upcalls.
    pub restoring: AtomicBool,
}

impl Backer {
    /// Takes settings over, and logs numbers of threads that are new (the kernel has its own, one a processor).
    pub(crate) fn set_settings(&self, settings: &Settings) {
        let threads = |s: &Settings| (s.n_handlers, s.n_revalidators);
        let old = std::mem::replace(&mut *self.settings.write(), settings.clone());
        let told = self.threads_told.swap(true, Ordering::Relaxed);
        if self.dpif.makes_devices() || told && threads(&old) == threads(settings) {
            return;
        }
        let (handlers, revalidators) = threads(settings);
        vlog_info!(
            OFPROTO_DPIF_UPCALL,
            "Setting n-handler-threads to {handlers}, setting n-revalidator-threads to {revalidators}"
        );
        vlog_info!(OFPROTO_DPIF_UPCALL, "Starting {} threads", u64::from(handlers) + u64::from(revalidators));
    }

    pub(crate) fn new(kind: &str, dpif: Arc<dyn Dpif>, clock: &Clock, world: &Arc<World>) -> Arc<Backer> {
        let features = Arc::new(Features::probe(&*dpif));
        features.log(&dpif.full_name());
        Arc::new(Backer {
            kind: kind.to_owned(),
            dpif,
            clock: clock.clone(),
            xcfg: Published::new(XlateConfig::default()),
            changed: Arc::new(Changes::new()),
            features: RwLock::new(Arc::clone(&features)),
            boot_features: features,
            meter_ids: Mutex::default(),
            recirc: RecircIds::new(),
            ukeys: Ukeys::new(),
            leaving: Mutex::default(),
            likeness: Likeness::default(),
            reval: Mutex::default(),
            round: AtomicU64::new(0),
            world: Arc::clone(world),
            tunnels: Mutex::default(),
            settings: RwLock::new(Settings::default()),
            threads_told: AtomicBool::new(false),
            flow_limit: AtomicU32::new(10_000),
            megaflows: AtomicBool::new(true),
            use_ufid: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            restoring: AtomicBool::new(false),
        })
    }

    /// Takes the lowest meter id of the provider that is free.
    pub(crate) fn take_meter_id(&self) -> u32 {
        let mut ids = self.meter_ids.lock();
        let free = ids.iter().zip(0..).find(|(used, n)| **used != *n).map(|(_, n)| n);
        let id = free.unwrap_or_else(|| u32::try_from(ids.len()).unwrap_or(u32::MAX));
        ids.insert(id);
        id
    }
    /// Forgets the flows of a datapath that is gone.
    pub(crate) fn forget_flows(&self) {
        for ukey in self.ukeys.all() {
            self.ukeys.remove(ukey.ufid);
        }
        self.leaving.lock().clear();
    }
    /// Removes a meter from the provider.
    pub(crate) fn drop_meter(&self, id: u32) {
        // One that is not there is gone as well.
        let _ = self.dpif.meter_del(id);
        self.meter_ids.lock().remove(&id);
    }

    /// What the provider can do.
    pub fn features(&self) -> Arc<Features> {
        Arc::clone(&self.features.read())
    }
    /// Whether packets of tunnels are encapsulated by actions of ours.
    pub fn native_tunnels(&self) -> bool {
        self.dpif.terminates_tunnels() && self.features().tnl_push_pop
    }
    /// Whether megaflows are on.
    pub fn megaflows_enabled(&self) -> bool {
        self.megaflows.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_threads() {
        // (asked for, processors) → (handlers, revalidators)
        let cases = [
            ((0, 0, 2), (1, 1)),
            ((3, 0, 2), (3, 1)),
            ((0, 2, 2), (1, 2)),
            ((3, 2, 2), (3, 2)),
            ((0, 0, 1), (1, 1)),
            ((0, 0, 16), (11, 5)),
            ((4, 0, 16), (4, 12)),
        ];
        for ((handlers, revalidators, processors), want) in cases {
            let mut s = Settings::default();
            s.set_threads(handlers, revalidators, processors);
            assert_eq!((s.n_handlers, s.n_revalidators), want);
        }
    }
}
