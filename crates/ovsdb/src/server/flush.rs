//! Answers that wait for the disk.
//!
//! A durable transaction's answer is among the actions as soon as it has run, but actions are handed out only after a flush: what arrived
//! together shares one. If it fails, the transactions have not happened. Their answers, and those of all that
//! committed to the same database after them, become I/O errors before anybody has seen them, and monitors, which were
//! told already, are told that the rows are back.

use super::{Action, Server};
use crate::error::Error;
use std::sync::Arc;

/// An answer that a failed flush makes an error.
pub(super) struct Unflushed {
    /// Its place among the actions.
    action: usize,
    database: String,
}

impl Server {
    /// The last action is the answer to a transaction that has changed `database`.
    pub(super) fn answered(&mut self, database: &str) {
        let waits = self.databases.get(database).is_some_and(|d| d.is_unflushed());
        if let Some(action) = self.actions.len().checked_sub(1).filter(|_| waits) {
            self.unflushed.push(Unflushed { action, database: database.to_string() });
        }
    }

    /// Makes durable what has to be.
    pub(super) fn flush(&mut self) {
        let unflushed = std::mem::take(&mut self.unflushed);
        let mut flushed: Vec<&str> = Vec::new();
        for u in &unflushed {
            let name = u.database.as_str();
            if flushed.contains(&name) {
                continue;
            }
            flushed.push(name);
            let Some(Err(failure)) = self.databases.get_mut(name).map(|d| d.flush()) else { continue };
            for u in unflushed.iter().filter(|u| u.database == name) {
                if let Some(Action::Send(_, text)) = self.actions.get_mut(u.action) {
                    *text = failed_answer(text, &failure.error);
                }
            }
            if let Some(commit) = failure.undone {
                self.committed(name, &commit, None);
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
