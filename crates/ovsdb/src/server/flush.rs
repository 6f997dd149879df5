//! Answers that wait for the disk.
//!
//! A transaction's answer is among the actions as soon as it has run, but actions are handed out only after a flush: what arrived
//! together is written, and if need be synchronised, together. If that fails, the transactions have not happened. Their answers, and
//! those of all that have seen their rows, become I/O errors before anybody has read them, and monitors, which were
//! told already, are told that the rows are back.

use super::{Action, Server};
use crate::error::Error;
use std::sync::Arc;

/// An answer that a failed flush makes an error.
pub(super) struct Unflushed {
    /// Its place among the actions.
    action: usize,
    database: Arc<str>,
    /// What the database had committed then.
    commits: u64,
}

impl Server {
    /// The last action is the answer to a transaction on `database`.
    pub(super) fn answered(&mut self, database: &str) {
        let Some(database) = self.databases.get(database).filter(|d| d.is_unflushed()) else { return };
        if let Some(action) = self.actions.len().checked_sub(1) {
            let (database, commits) = (database.schema.name.clone(), database.commits);
            self.unflushed.push(Unflushed { action, database, commits });
        }
    }

    /// Writes what was committed, and makes durable what has to be.
    pub(super) fn flush(&mut self) {
        let unflushed = std::mem::take(&mut self.unflushed);
        let mut failures = Vec::new();
        for (name, database) in self.databases.iter_mut().filter(|(_, d)| d.is_unflushed()) {
            if let Err(failure) = database.flush() {
                failures.push((name.clone(), failure));
            }
        }
        for (name, failure) in failures {
            let seen = |u: &&Unflushed| *u.database == *name && u.commits > failure.since;
            for u in unflushed.iter().filter(seen) {
                if let Some(Action::Send(_, text)) = self.actions.get_mut(u.action) {
                    *text = failed_answer(text, &failure.error);
                }
            }
            if let Some(commit) = failure.undone {
                self.committed(&name, &commit, None);
            }
        }
    }
}

/// The answer to a transaction with one more result: the error that its end brought.
fn failed_answer(answer: &str, error: &Error) -> Arc<str> {
    const END: &str = "],\"error\":null}";
    let results = answer.strip_suffix(END).unwrap_or(answer);
    let comma = if results.ends_with('[') { "" } else { "," };
    format!("{results}{comma}{}{END}", error.to_json()).into()
}
