//! Kernel devices: what `system`, `tap` and `internal` share.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::changes::Changes;
use crate::registry::Provider;

/// State that all kernel devices of a registry share.
pub struct Linux {
    changes: Arc<Changes>,
}

impl Linux {
    /// Starts listening to the kernel.
    pub fn new(changes: &Arc<Changes>) -> io::Result<Arc<Linux>> {
        Ok(Arc::new(Linux { changes: changes.clone() }))
    }
    /// The kinds.
    pub fn providers(_this: &Arc<Linux>) -> Vec<Arc<dyn Provider>> {
        Vec::new()
    }
    /// See [`crate::Registry::fd`].
    pub fn fd(&self) -> RawFd {
        self.changes.fd()
    }
    /// Takes in what the kernel reported.
    pub fn run(&self) {}
}
