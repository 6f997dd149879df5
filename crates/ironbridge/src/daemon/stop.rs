//! The way to end a daemon's loop that runs in a thread.
//!
//! A daemon that is a process ends by a signal or by `exit` on its control socket. As a thread it ends by the latter or by
//! [`Stop::request`], from any thread: the loop wakes, sees [`Stop::is_requested`], and returns when it has cleaned up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ib_stream::reactor::{Handle, Key};

/// A request to end, and whom to wake for it.
#[derive(Debug, Default)]
pub struct Stop {
    requested: AtomicBool,
    waker: OnceLock<(Handle, Key)>,
}

impl Stop {
    /// Names the loop to wake; the loop calls it, once, before it first looks at [`Self::is_requested`].
    pub fn attach(&self, handle: &Handle) {
        // A second loop under the same stop would be a bug; it would merely sleep longer.
        let _ = self.waker.set((handle.clone(), handle.new_key()));
    }

    /// Asks the loop to end.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        if let Some((handle, key)) = self.waker.get() {
            handle.wake(*key);
        }
    }

    /// Whether the loop is to end.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}
