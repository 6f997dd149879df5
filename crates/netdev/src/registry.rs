//! Who has which device: kinds by name, open devices by name.
//!
//! One registry serves a daemon; bridge and datapath share it behind an `Arc`. A device is open while
//! anyone holds it. The registry itself holds none: the last `Arc` that goes closes the device.
//!
//! Kinds come from [`Provider`]s. The built-in ones are here from the start (`system`, `tap`, `internal`,
//! `patch`, `replay`, `null`); other crates register theirs (tunnels). [`Registry::enable_dummy`] adds dummies, or puts them
//! in the place of what is registered by then, as `--enable-dummy` wants it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::changes::Changes;
use crate::contract::Netdev;
use crate::dummy::{DummyProvider, DummyWorld};
use crate::error::{Error, Result};
use crate::linux::hosted::HostedProvider;
use crate::linux::{Linux, RemoveTogether};
use crate::patch::PatchProvider;
use crate::replay::MemoryProvider;

/// Makes devices of one kind.
pub trait Provider: Send + Sync {
    /// The kind, as in the Interface row's `type` column (`system` for the empty one).
    fn kind(&self) -> &str;
    /// Opens `name`. `changes` is the registry's notifier for the new device to bump.
    fn open(&self, name: &str, changes: &Arc<Changes>) -> Result<Arc<dyn Netdev>>;
}

/// `--enable-dummy[=LEVEL]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DummyLevel {
    /// No dummies.
    None,
    /// Kinds `dummy`, `dummy-internal` and `dummy-pmd` exist.
    Normal,
    /// Also `system` devices are dummies.
    System,
    /// Every kind but `patch` is.
    Override,
}

/// Open devices and known kinds; see the module.
pub struct Registry {
    inner: Mutex<Inner>,
    changes: Arc<Changes>,
    linux: Arc<Linux>,
    dummies: Arc<DummyWorld>,
}

struct Inner {
    providers: BTreeMap<String, Arc<dyn Provider>>,
    open: HashMap<String, Weak<dyn Netdev>>,
    /// `open` is swept of dead entries when it has grown to this.
    sweep_at: usize,
}

impl Registry {
    /// A registry with the built-in kinds.
    pub fn new() -> io::Result<Arc<Registry>> {
        let changes = Arc::new(Changes::new()?);
        let linux = Linux::new(&changes)?;
        let registry = Registry {
            inner: Mutex::new(Inner { providers: BTreeMap::new(), open: HashMap::new(), sweep_at: 64 }),
            changes,
            linux: linux.clone(),
            dummies: Arc::new(DummyWorld::default()),
        };
        for provider in Linux::providers(&linux) {
            registry.register(provider);
        }
        registry.register(Arc::new(PatchProvider));
        registry.register(Arc::new(MemoryProvider::Replay));
        registry.register(Arc::new(MemoryProvider::Null));
        for provider in crate::vhost::providers() {
            registry.register(provider);
        }
        Ok(Arc::new(registry))
    }

    /// Adds a kind, or replaces it for devices opened from now on.
    pub fn register(&self, provider: Arc<dyn Provider>) {
        self.inner.lock().providers.insert(provider.kind().to_owned(), provider);
    }

    /// Adds dummy kinds. Kinds registered later are never overridden, so tunnels register after this.
    pub fn enable_dummy(&self, level: DummyLevel) {
        let dummy = |kind: &str| Arc::new(DummyProvider::new(kind, &self.dummies));
        let replaced = match level {
            DummyLevel::None => return,
            DummyLevel::Normal => Vec::new(),
            DummyLevel::System => vec!["system".to_owned()],
            DummyLevel::Override => {
                let inner = self.inner.lock();
                inner.providers.keys().filter(|k| *k != "patch").cloned().collect()
            }
        };
        for kind in replaced.iter().map(String::as_str).chain(["dummy", "dummy-internal", "dummy-pmd"]) {
            self.register(dummy(kind));
        }
    }

    /// Makes `tap` and `internal` devices without a host behind them, where there is no `/dev/net/tun`: bridges then forward
    /// between their other ports.
    pub fn do_without_tun(&self) {
        for kind in ["tap", "internal"] {
            self.register(Arc::new(DummyProvider::new(kind, &self.dummies)));
        }
    }

    /// Devices of this kind, `tap` or `internal`, are made by a datapath that is not in this process; they are opened once they
    /// are there.
    pub fn leave_to_datapath(&self, kind: &'static str) {
        self.register(Arc::new(HostedProvider { linux: Arc::clone(&self.linux), kind }));
    }

    /// The kernel's disciplines are set by a datapath that is not in this process: devices keep here what they were asked for, and
    /// read the counters.
    pub fn leave_shaping(&self) {
        self.linux.leave_shaping();
    }

    /// All kinds, sorted.
    pub fn kinds(&self) -> Vec<String> {
        self.inner.lock().providers.keys().cloned().collect()
    }

    /// Opens `name` as `kind` (empty: `system`), or shares it if it is open as that already.
    pub fn open(&self, name: &str, kind: &str) -> Result<Arc<dyn Netdev>> {
        let kind = if kind.is_empty() { "system" } else { kind };
        let mut inner = self.inner.lock();
        if let Some(dev) = inner.open.get(name).and_then(Weak::upgrade) {
            return if dev.kind() == kind {
                Ok(dev)
            } else {
                Err(Error::KindConflict {
                    name: name.to_owned(),
                    open_as: dev.kind().to_owned(),
                    asked: kind.to_owned(),
                })
            };
        }
        let provider = inner.providers.get(kind).ok_or_else(|| Error::UnknownKind(kind.to_owned()))?.clone();
        let dev = provider.open(name, &self.changes)?;
        if inner.open.len() >= inner.sweep_at {
            inner.open.retain(|_, weak| weak.strong_count() > 0);
            inner.sweep_at = 64.max(inner.open.len() * 2);
        }
        inner.open.insert(name.to_owned(), Arc::downgrade(&dev));
        Ok(dev)
    }

    /// The device if it is open.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Netdev>> {
        self.inner.lock().open.get(name).and_then(Weak::upgrade)
    }

    /// All open devices, by name.
    pub fn devices(&self) -> Vec<Arc<dyn Netdev>> {
        let inner = self.inner.lock();
        let mut all: Vec<_> = inner.open.values().filter_map(Weak::upgrade).collect();
        drop(inner);
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Readable when [`Self::run`] has something to do. Level-triggered, the same for life.
    pub fn fd(&self) -> RawFd {
        self.linux.fd()
    }

    /// Takes in what the kernel reported about devices; tells whether any device of ours changed since the last call.
    /// Each change bumped the sequence number of its device.
    pub fn run(&self) -> bool {
        self.linux.run();
        self.changes.acknowledge()
    }

    /// While the answer lives, devices that we made (TAPs) and that lose their last reference stay; they go together
    /// when it is dropped. The kernel waits some 20 ms for each that goes alone.
    pub fn remove_together(&self) -> RemoveTogether {
        self.linux.remove_together()
    }

    /// From now on devices that we made and that the kernel keeps (TAPs) outlive their objects: for a daemon that
    /// exits to be started again. Without this call they are deleted with the last reference.
    pub fn keep_devices(&self) {
        self.linux.keep_devices();
    }

    /// Counts changes of all devices together.
    pub fn seq(&self) -> u64 {
        self.changes.seq()
    }

    /// What the dummies share: address counter and the like.
    pub fn dummies(&self) -> &Arc<DummyWorld> {
        &self.dummies
    }
}
