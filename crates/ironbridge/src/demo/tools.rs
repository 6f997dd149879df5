//! Runs the standard tools in this process, with patience that ends.
//!
//! A tool may wait for the switch. It runs in a thread of its own; one that is not done in time, or when a signal comes, is
//! left alone and ends with the process.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use ib_sys::signal;

use crate::embedded;

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a line has no good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A signal came.
    Interrupted,
    /// The tool said so, or nothing in time.
    Failed(String),
}

/// Runs a line; its output if it succeeds.
pub fn run(line: &str) -> Result<String, Failure> {
    let (tell, told) = mpsc::channel();
    let owned = line.to_owned();
    let spawned = std::thread::Builder::new().name("tool".to_owned()).spawn(move || {
        // Nobody may listen any more.
        let _ = tell.send(embedded::tool(&owned));
    });
    spawned.map_err(|e| Failure::Failed(format!("{line}: {e}")))?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match told.recv_timeout(Duration::from_millis(50)) {
            Ok((0, out, _)) => return Ok(out),
            Ok((code, _, err)) => {
                return Err(Failure::Failed(format!("{line}: exit code {code}: {}", err.trim_end())));
            }
            Err(RecvTimeoutError::Timeout) if signal::held().is_some() => return Err(Failure::Interrupted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Failed(format!("{line}: crashed"))),
        }
    }
    Err(Failure::Failed(format!("{line}: no answer in {} s", PATIENCE.as_secs())))
}
