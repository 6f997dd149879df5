//! Compaction of database files while they are served.
//!
//! The loop hands a thread the rows as they are, which costs nothing ([`ib_ovsdb::row_map`]), and goes on: transactions are appended to the
//! old file, and change copies of rows.
//! The thread writes the new file, waits for the disk, and copies what was appended meanwhile; the loop copies the little that
//! is left and gives the new file its name. What takes time after that, letting the old file's blocks and the rows' memory go, is a
//! thread's business again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ib_base::time::Instant;
use ib_base::vlog::module::OVSDB_SERVER;
use ib_base::{vlog_err, vlog_info};
use ib_ovsdb::log::{Replaced, Retired};
use ib_stream::unixctl;

use super::{App, now_of};

/// How often grown files are looked at.
const CHECK_MS: u64 = 1_000;
/// The comment of the record that a compaction makes.
const COMMENT: &str = "compacting database online";

/// What is compacted.
pub(crate) struct Compactions {
    next_check: Instant,
    /// Under way, by database.
    running: BTreeMap<String, Compacting>,
    /// Give unused memory back to the system after a compaction.
    pub trim_memory: bool,
}

impl Compactions {
    pub(super) fn new(now: Instant) -> Compactions {
        Compactions { next_check: now, running: BTreeMap::new(), trim_memory: true }
    }
}

struct Compacting {
    result: mpsc::Receiver<ib_ovsdb::Result<Replaced>>,
    calls: Vec<WaitingCall>,
}

/// A call that waits for several compactions.
struct Waiting {
    call: Option<unixctl::Call>,
    left: usize,
    errors: Vec<String>,
}

type WaitingCall = Arc<Mutex<Waiting>>;

/// Lets a file go, and memory with it, where nobody waits.
fn let_go(retired: Option<Retired>, trim_memory: bool) {
    let work = move || {
        drop(retired);
        if trim_memory {
            ib_sys::memory::trim();
        }
    };
    // Without a thread the file was let go when the attempt failed, and memory stays ours.
    let _ = std::thread::Builder::new().name("clean-up".to_string()).spawn(work);
}

impl App {
    /// Begins to compact the databases whose files have grown so much that it is time.
    pub(super) fn compact_grown(&mut self, now: Instant) {
        if now < self.compactions.next_check {
            return;
        }
        self.compactions.next_check = now.plus_ms(CHECK_MS);
        let now = now_of(now);
        let names: Vec<String> = self.files.keys().cloned().collect();
        for name in names {
            if self.server.database_mut(&name).is_some_and(|d| d.should_compact(now.ms)) {
                vlog_info!(OVSDB_SERVER, "compacting {name} database");
                self.begin_compaction(&name);
            }
        }
    }

    /// Begins to compact a database in a thread; the loop goes on. Nothing if that is under way.
    pub(crate) fn begin_compaction(&mut self, name: &str) {
        let now = self.now();
        if self.compactions.running.contains_key(name) {
            return;
        }
        let Some(database) = self.server.database_mut(name) else { return };
        let Some(job) = database.begin_compaction(COMMENT, now.wall_ms, now.ms) else { return };
        let (tell, result) = mpsc::channel();
        let handle = self.remotes.handle().clone();
        let key = handle.new_key();
        let spawned = std::thread::Builder::new().name("compaction".to_string()).spawn(move || {
            // The receiver is gone only if the daemon is.
            let _ = tell.send(job.write());
            handle.wake(key);
        });
        match spawned {
            Ok(_) => {
                self.compactions.running.insert(name.to_string(), Compacting { result, calls: Vec::new() });
            }
            Err(e) => vlog_err!(OVSDB_SERVER, "compacting {name} database: {}", ib_base::errno::strerror(&e)),
        }
    }

    /// Puts finished compactions in place.
    pub(super) fn finish_compactions(&mut self) {
        if self.compactions.running.is_empty() {
            return;
        }
        let now = self.now();
        let mut done = Vec::new();
        for (name, compacting) in &self.compactions.running {
            if let Ok(result) = compacting.result.try_recv() {
                done.push((name.clone(), result));
            }
        }
        for (name, result) in done {
            let calls = self.compactions.running.remove(&name).map(|c| c.calls).unwrap_or_default();
            let result = match (result, self.server.database_mut(&name)) {
                (Ok(replaced), Some(database)) => database.finish_compaction(replaced, now.ms),
                (Ok(replaced), None) => {
                    replaced.discard();
                    Ok(None)
                }
                (Err(error), _) => Err(error),
            };
            let error = match result {
                Ok(retired) => {
                    let_go(retired, self.compactions.trim_memory);
                    None
                }
                Err(error) => {
                    vlog_err!(OVSDB_SERVER, "{error}");
                    Some(error.to_string())
                }
            };
            for call in calls {
                self.compacted(call, error.clone());
            }
        }
    }

    /// Answers a call once all databases that it asked for are compact.
    fn compacted(&mut self, call: WaitingCall, error: Option<String>) {
        let mut waiting = call.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.errors.extend(error);
        waiting.left -= 1;
        if waiting.left == 0
            && let Some(call) = waiting.call.take()
        {
            if waiting.errors.is_empty() { call.ok("") } else { call.err(waiting.errors.join("\n")) }
        }
    }

    /// Compacts databases at a user's request; `call` is answered when all are done.
    pub(crate) fn compact(&mut self, names: &[String], call: unixctl::Call) {
        for name in names {
            vlog_info!(OVSDB_SERVER, "compacting {name} database by user request");
            self.begin_compaction(name);
        }
        let running: Vec<&String> =
            names.iter().filter(|n| self.compactions.running.contains_key(*n)).collect();
        if running.is_empty() {
            return call.ok("");
        }
        let waiting = Waiting { call: Some(call), left: running.len(), errors: Vec::new() };
        let waiting = Arc::new(Mutex::new(waiting));
        for name in running {
            if let Some(compacting) = self.compactions.running.get_mut(name) {
                compacting.calls.push(waiting.clone());
            }
        }
    }
}
