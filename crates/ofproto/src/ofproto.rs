//! The core of one bridge: flow tables, groups, meters, learned addresses.
//!
//! It is shared: the main thread changes it by flow_mods, datapath threads translate packets with it.
//! Tables are versioned; a translation reads one version from beginning to end. What the core wants to
//! say to controllers (packet-ins, flow removals) goes into a bounded queue that the main thread empties.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ib_base::time::{Clock, Instant};
use ib_classifier::{Classifier, MiniMatch};
use ib_flow::tlv::TlvTable;
use ib_flow::{Match, OdpPort};
use ib_l2::rstp::Rstp;
use ib_l2::stp::Stp;
use ib_l2::{MacLearning, McastSnooping};
use ib_openflow::action::{Action, Controller};
use ib_openflow::message::{FragHandling, PacketIn, TableMiss, Vacancy};
use ib_packet::Mac;
use parking_lot::{Mutex, RwLock};

use crate::change::Changes;
use crate::config::TableConfig;
use crate::export::Export;
use crate::flow_mod::FlowState;
use crate::group::Group;
use crate::meter::Meter;
use crate::monitor::News;
use crate::recirc::RecircEntry;
use crate::rule::{NewRule, Rule};
use crate::switch::Waker;

/// Number of tables, the hidden internal one included.
pub const N_TABLES: usize = 255;
/// The hidden table: where packets go that no visible table may see.
pub const INTERNAL_TABLE: u8 = 254;
/// Packet-ins that may wait for the main thread, per bridge.
const MAX_QUEUED: usize = 4096;

/// Packets that controllers may hold with different states, per bridge.
const MAX_PAUSED: usize = 1024;

/// Names a bundle of one bridge.
pub type BundleId = u32;

/// A source address as translation saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Address.
    pub mac: Mac,
    /// VLAN.
    pub vlan: u16,
    /// Bundle behind which it is.
    pub bundle: BundleId,
    /// By gratuitous ARP.
    pub grat_arp: bool,
    /// The bundle is a bond.
    pub is_bond: bool,
}

/// One flow table.
pub struct Table {
    /// Rules.
    pub cls: Classifier<Rule>,
    /// Lookups that found a rule.
    pub hits: AtomicU64,
    /// Lookups that did not.
    pub misses: AtomicU64,
    miss: AtomicU8,
    /// Configuration by the database.
    pub config: Mutex<TableConfig>,
    /// OpenFlow 1.4 eviction bit.
    pub eviction: AtomicBool,
    /// OpenFlow 1.4 vacancy thresholds.
    pub vacancy: Mutex<Vacancy>,
    /// The next vacancy event is that there is room again.
    pub crowded: AtomicBool,
    /// Flows that controllers see.
    pub n_visible: AtomicU32,
}

impl Table {
    fn new() -> Table {
        Table {
            cls: Classifier::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            miss: AtomicU8::new(0),
            config: Mutex::default(),
            eviction: AtomicBool::new(false),
            vacancy: Mutex::default(),
            crowded: AtomicBool::new(false),
            n_visible: AtomicU32::new(0),
        }
    }
    /// What happens to packets that no rule matches.
    pub fn miss_config(&self) -> TableMiss {
        match self.miss.load(Ordering::Relaxed) {
            1 => TableMiss::Controller,
            2 => TableMiss::Continue,
            3 => TableMiss::Drop,
            _ => TableMiss::Default,
        }
    }
    /// Sets it.
    pub fn set_miss_config(&self, miss: TableMiss) {
        let n = match miss {
            TableMiss::Default => 0,
            TableMiss::Controller => 1,
            TableMiss::Continue => 2,
            TableMiss::Drop => 3,
        };
        self.miss.store(n, Ordering::Relaxed);
    }
}

/// A packet on its way to controllers.
#[derive(Debug)]
pub struct QueuedPacketIn {
    /// The message; `data` is the whole packet.
    pub pin: PacketIn,
    /// Bytes of the packet to send; 0xffff all.
    pub max_len: u16,
    /// Controllers with this id.
    pub controller_id: u16,
    /// It is due to a miss (limited separately, `miss_send_len` applies).
    pub is_miss: bool,
    /// It waits to be resumed: its state, and the datapath port that it came by.
    pub paused: Option<(Arc<RecircEntry>, OdpPort)>,
}

/// The core of a bridge. See the module's description.
pub struct Ofproto {
    /// Name of the bridge.
    pub name: String,
    /// Distinguishes bridges, also ones of the same name over time.
    pub id: u32,
    /// The clock.
    pub clock: Clock,
    /// Tables 0 to 254.
    pub tables: Box<[Table]>,
    /// The version that lookups use.
    pub version: AtomicU64,
    pub(crate) flows: Mutex<FlowState>,
    /// Groups by id.
    pub groups: RwLock<BTreeMap<u32, Arc<Group>>>,
    /// Meters by id.
    pub meters: RwLock<BTreeMap<u32, Arc<Meter>>>,
    /// Learned addresses.
    pub ml: RwLock<MacLearning<BundleId>>,
    /// Multicast groups, if the bridge looks at them.
    pub mcast: RwLock<Option<McastSnooping<BundleId>>>,
    /// Exporters of what passes.
    pub export: Export,
    /// Spanning tree, if the bridge takes part in one.
    pub stp: Mutex<Option<Stp>>,
    /// Rapid spanning tree, likewise; never both.
    pub rstp: Mutex<Option<Rstp>>,
    /// Ports whose BFD, CFM or LLDP is to be looked at.
    pub(crate) monitor_news: News,
    /// Bundles that exist: nothing is learned behind others, whatever an old translation says.
    live_bundles: RwLock<BTreeSet<BundleId>>,
    frag: AtomicU8,
    /// Geneve options as fields.
    tlv: RwLock<Option<Arc<TlvTable>>>,
    /// Bumped by whatever may change a translation's result.
    pub changed: Arc<Changes>,
    queue: Mutex<VecDeque<QueuedPacketIn>>,
    /// States of packets that controllers hold (`controller(pause)`), the latest ones.
    paused: Mutex<VecDeque<Arc<RecircEntry>>>,
    waker: OnceLock<Waker>,
    /// Packet-ins that did not fit into the queue.
    pub queue_drops: AtomicU64,
    /// Somebody wants packet-ins about misses.
    pub wants_misses: AtomicBool,
    /// A translation has asked for that since it changed last.
    pub missed: AtomicBool,
    /// Send to controller on invalid TTL.
    pub invalid_ttl_to_controller: AtomicBool,
    pub(crate) miss_rule: Arc<Rule>,
    pub(crate) no_packet_in_rule: Arc<Rule>,
    pub(crate) drop_frags_rule: Arc<Rule>,
}

impl Ofproto {
    /// Somebody wants packet-ins about misses, or nobody: flows that asked are looked at again if that is news.
    pub(crate) fn want_misses(&self, wanted: bool) {
        if self.wants_misses.swap(wanted, Ordering::Relaxed) != wanted
            && self.missed.swap(false, Ordering::Relaxed)
        {
            self.changed.misses([&self.miss_rule, &self.no_packet_in_rule]);
        }
    }

    pub(crate) fn new(name: &str, id: u32, clock: &Clock, changed: Arc<Changes>) -> Arc<Ofproto> {
        let now = clock.now();
        let tables: Box<[Table]> = (0..N_TABLES).map(|_| Table::new()).collect();
        let internal = |reg0: u32, actions: Vec<Action>| internal_rule(reg0, actions, now);
        let controller =
            Action::Controller(Controller { max_len: u16::MAX, reason: 7, ..Controller::default() });
        let of = Ofproto {
            name: name.to_owned(),
            id,
            clock: clock.clone(),
            tables,
            version: AtomicU64::new(1),
            flows: Mutex::default(),
            groups: RwLock::default(),
            meters: RwLock::default(),
            ml: RwLock::new(MacLearning::new()),
            mcast: RwLock::new(None),
            export: Export::default(),
            stp: Mutex::new(None),
            rstp: Mutex::new(None),
            monitor_news: News::default(),
            live_bundles: RwLock::default(),
            frag: AtomicU8::new(0),
            tlv: RwLock::default(),
            changed,
            queue: Mutex::default(),
            paused: Mutex::default(),
            waker: OnceLock::new(),
            queue_drops: AtomicU64::new(0),
            wants_misses: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            invalid_ttl_to_controller: AtomicBool::new(false),
            miss_rule: internal(1, vec![controller]),
            no_packet_in_rule: internal(2, vec![]),
            drop_frags_rule: internal(3, vec![]),
        };
        let internal_cls = &of.tables[usize::from(INTERNAL_TABLE)].cls;
        for rule in [&of.miss_rule, &of.no_packet_in_rule, &of.drop_frags_rule] {
            internal_cls.insert(Arc::clone(rule));
        }
        let mut fresh = Match::catch_all();
        fresh.mask.0.recirc_id = u32::MAX;
        internal_cls.insert(Rule::new(new_internal(&fresh, 2, vec![], now)));
        Arc::new(of)
    }

    /// The version that a translation should read.
    pub fn current_version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Learns that an address is behind a bundle. Returns whether that is news, which calls for
    /// revalidation. A packet that was translated before its bundle went teaches nothing.
    pub fn learn(&self, seen: &Seen) -> bool {
        let now = self.clock.now();
        let Seen { mac, vlan, bundle, grat_arp, is_bond } = *seen;
        if !self.ml.read().needs_update(mac, vlan, bundle, grat_arp, is_bond, now) {
            return false;
        }
        // Held until it is learned, so that the bundle can't go in between.
        let live = self.live_bundles.read();
        let news = if live.contains(&bundle) {
            self.ml.write().update(mac, vlan, bundle, grat_arp, is_bond, now)
        } else {
            Vec::new()
        };
        drop(live);
        self.addresses_changed(&news);
        !news.is_empty()
    }
    /// Tells revalidation of addresses that were learned, moved or forgotten.
    pub(crate) fn addresses_changed(&self, news: &[Mac]) {
        news.iter().for_each(|mac| self.changed.address(self.id, *mac));
    }
    pub(crate) fn bundle_came(&self, bundle: BundleId) {
        self.live_bundles.write().insert(bundle);
    }
    /// Forgets addresses behind a bundle that stays.
    pub(crate) fn forget_behind(&self, bundle: BundleId) {
        self.ml.write().flush_port(bundle);
    }
    /// Forgets what is behind a bundle that goes.
    pub(crate) fn bundle_went(&self, bundle: BundleId) {
        self.live_bundles.write().remove(&bundle);
        self.ml.write().flush_port(bundle);
        if let Some(table) = self.mcast.write().as_mut() {
            table.flush_port(bundle);
        }
    }

    /// The binding of tunnel options to `tun_metadata*`.
    pub fn tlv(&self) -> Option<Arc<TlvTable>> {
        self.tlv.read().clone()
    }
    /// Replaces it.
    pub(crate) fn set_tlv(&self, table: Option<Arc<TlvTable>>) {
        *self.tlv.write() = table;
        self.changed.bump();
    }

    /// How IP fragments are looked up.
    pub fn frag_handling(&self) -> FragHandling {
        match self.frag.load(Ordering::Relaxed) {
            1 => FragHandling::Drop,
            2 => FragHandling::Reassemble,
            3 => FragHandling::NxMatch,
            _ => FragHandling::Normal,
        }
    }
    /// Changes it.
    pub fn set_frag_handling(&self, frag: FragHandling) {
        let n = match frag {
            FragHandling::Normal => 0,
            FragHandling::Drop => 1,
            FragHandling::Reassemble => 2,
            FragHandling::NxMatch => 3,
        };
        if self.frag.swap(n, Ordering::Relaxed) != n {
            self.changed.bump();
        }
    }

    /// Keeps the state of a packet that a controller will send back.
    pub(crate) fn keep_paused(&self, entry: &Arc<RecircEntry>) {
        let mut paused = self.paused.lock();
        if paused.iter().any(|e| e.id == entry.id) {
            return;
        }
        if paused.len() >= MAX_PAUSED {
            paused.pop_front();
        }
        paused.push_back(Arc::clone(entry));
    }

    /// Queues a packet for controllers; drops and counts when the queue is full.
    pub fn send_packet_in(&self, pin: QueuedPacketIn) {
        let mut queue = self.queue.lock();
        if queue.len() >= MAX_QUEUED {
            self.queue_drops.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.push_back(pin);
        // One wake-up serves all that wait.
        if queue.len() == 1
            && let Some(wake) = self.waker.get()
        {
            wake();
        }
    }
    /// Has the main thread look at what came up.
    pub(crate) fn wake(&self) {
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }
    pub(crate) fn set_waker(&self, waker: &Waker) {
        // A bridge keeps the loop that it was made under.
        let _ = self.waker.set(Arc::clone(waker));
    }
    /// Rules over all tables, hidden ones included.
    pub fn rule_count(&self) -> u64 {
        self.tables.iter().map(|t| t.cls.len() as u64).sum()
    }
    pub(crate) fn take_packet_ins(&self) -> VecDeque<QueuedPacketIn> {
        std::mem::take(&mut *self.queue.lock())
    }
    pub(crate) fn has_packet_ins(&self) -> bool {
        !self.queue.lock().is_empty()
    }
}

/// A rule of the internal table, visible from the beginning.
pub(crate) fn new_internal(m: &Match, priority: i32, actions: Vec<Action>, now: Instant) -> NewRule {
    NewRule {
        match_: MiniMatch::new(m),
        priority,
        table: INTERNAL_TABLE,
        cookie: 0,
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        flags: 0,
        actions: actions.into(),
        created: now,
        modified: now,
        used: None,
        version: 0,
    }
}

fn internal_rule(reg0: u32, actions: Vec<Action>, now: Instant) -> Arc<Rule> {
    let mut m = Match::catch_all();
    m.flow.regs[0] = reg0;
    m.mask.0.regs[0] = u32::MAX;
    Rule::new(new_internal(&m, 0, actions, now))
}
