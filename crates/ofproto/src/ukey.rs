//! Flows that were installed into a datapath, as revalidation remembers them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ib_base::time::Instant;
use ib_dpif::{Action as OdpAction, FlowStats, Ufid};
use ib_flow::miniflow::{Miniflow, Minimask};
use parking_lot::Mutex;

use crate::recirc::RecircEntry;
use crate::xlate::CacheEntry;

/// One installed flow.
pub struct Ukey {
    /// Identifier.
    pub ufid: Ufid,
    /// Key, `in_port` a datapath port.
    pub key: Miniflow,
    /// When it was installed.
    pub created: Instant,
    /// The round of revalidation that was the latest one then.
    pub born: u64,
    /// What changes.
    pub state: Mutex<UkeyState>,
}

/// What changes about an installed flow.
pub struct UkeyState {
    /// Mask.
    pub mask: Arc<Minimask>,
    /// Actions.
    pub actions: Arc<[OdpAction]>,
    /// Counters that have been pushed to rules already.
    pub pushed: FlowStats,
    /// Change counter of the translation that this is the result of.
    pub seen: u64,
    /// Where counters go.
    pub cache: Arc<[CacheEntry]>,
    /// Recirculation ids that the actions use.
    pub recircs: Vec<Arc<RecircEntry>>,
    /// Slow path reasons.
    pub slow: u32,
    /// Revalidation has made or used `cache`.
    pub settled: bool,
    /// The datapath has it.
    pub installed: bool,
    /// The datapath had it before we knew of it: made by a control plane before us.
    pub adopted: bool,
    /// The latest round that met it.
    pub met: u64,
}

const SHARDS: usize = 64;

type Shard = Mutex<HashMap<Ufid, Arc<Ukey>, foldhash::fast::RandomState>>;

/// All installed flows of a datapath, by ufid.
pub struct Ukeys {
    shards: Box<[Shard]>,
    n: AtomicUsize,
}

impl Default for Ukeys {
    fn default() -> Self {
        Ukeys::new()
    }
}

impl Ukeys {
    /// None.
    pub fn new() -> Ukeys {
        Ukeys { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), n: AtomicUsize::new(0) }
    }
    fn shard(&self, ufid: Ufid) -> &Shard {
        &self.shards[(ufid.0 ^ (ufid.0 >> 64)) as usize % SHARDS]
    }
    /// Finds one.
    pub fn get(&self, ufid: Ufid) -> Option<Arc<Ukey>> {
        self.shard(ufid).lock().get(&ufid).cloned()
    }
    /// Adds or replaces one; the replaced one.
    pub fn insert(&self, ukey: Arc<Ukey>) -> Option<Arc<Ukey>> {
        let old = self.shard(ukey.ufid).lock().insert(ukey.ufid, ukey);
        if old.is_none() {
            self.n.fetch_add(1, Ordering::Relaxed);
        }
        old
    }
    /// Removes one.
    pub fn remove(&self, ufid: Ufid) -> Option<Arc<Ukey>> {
        let old = self.shard(ufid).lock().remove(&ufid);
        if old.is_some() {
            self.n.fetch_sub(1, Ordering::Relaxed);
        }
        old
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.n.load(Ordering::Relaxed)
    }
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Those that `wanted` says, asked one after the other with a part of the index locked.
    pub fn select(&self, mut wanted: impl FnMut(&Ukey) -> bool) -> Vec<Arc<Ukey>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(shard.lock().values().filter(|u| wanted(u)).cloned());
        }
        found
    }
    /// All of them now.
    pub fn all(&self) -> Vec<Arc<Ukey>> {
        self.shards.iter().flat_map(|s| s.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}
