//! Where a database's transactions are kept.
//!
//! A database sees [`Storage`]: a sequence of records, the first of which is the schema, that grows at its end, becomes durable
//! up to a position, and can be replaced as a whole by a shorter sequence with the same meaning. [`Log`] is the one implementation:
//! a file of its own. The log of a cluster's member would be another; its files are recognised and refused.
//!
//! What is promised, and to whom:
//!
//! - A record that [`Storage::append`] has accepted survives the end of the process; one that [`Storage::flush`] has covered
//!   survives that of the machine. Records survive in order: if one does, so do all before it.
//! - No part of a record counts. Readers stop at the first that is not whole, and the next append cuts off what is behind the
//!   last whole one.
//! - A record that could not be written or made durable is taken back, so that it isn't there when the file is read again. After a failed
//!   flush nothing that was not durable can be trusted any more (the kernel forgets which pages it could not write), so the
//!   file then takes no more durable records: it has to be replaced first, from memory. [`Storage::fault`] says so. Only if the power
//!   goes before that may a record come back that was answered with an error.
//! - Replacing is atomic: whoever opens the file finds the old one or the new one, each with all that was accepted.
//!
//! All access to files goes through [`Disk`], in whose place tests put a simulated one that fails and loses what was not flushed.

mod disk;
mod record;
mod replace;
#[cfg(test)]
pub(crate) mod sim;
mod standalone;

pub use disk::{Disk, DiskFile, OpenMode, OsDisk};
pub use record::{CLUSTER_MAGIC, MAGIC, Record, TextRecord, frame};
pub use replace::{Replaced, Replacement, Retired};
pub use standalone::{Locker, Log, is_cluster, lock_path};

use crate::error::{Error, Result};
use ib_base::json::JsonError;

/// Where records are kept. Only one thread at a time uses a storage; what [`Storage::begin_replacement`] returns is for another.
pub trait Storage: Send {
    /// What messages call it.
    fn name(&self) -> &str;

    /// The next of the records that were there at the beginning, with its checksum verified; none at the end. After an error there
    /// are no more, and the error repeats.
    fn read_text(&mut self) -> Result<Option<TextRecord>>;

    /// Declares the record that was read last bad because it is no JSON object, and makes the error that says so.
    fn not_json(&mut self, record: &TextRecord, fault: &JsonError) -> Error;

    /// Declares the record at `offset`, which was read last, and all behind it bad: its content makes no sense.
    fn unread(&mut self, offset: u64);

    /// Where the next record goes. Positions grow with each record, and start anew when the whole is replaced.
    fn end(&self) -> u64;

    /// Appends a record, which must be one line of JSON without its line feed. An error means that it is not there.
    fn append(&mut self, record: &str) -> Result<()>;

    /// Appends several records at once. An error means that none of them is there.
    fn append_all(&mut self, records: &[String]) -> Result<()>;

    /// Makes all that was appended durable. After an error the storage has a [`Storage::fault`], and the caller has to
    /// [`Storage::take_back`] what nobody may be told of.
    fn flush(&mut self) -> Result<()>;

    /// Forgets the records behind `end`, which was the [`Storage::end`] before they were appended.
    fn take_back(&mut self, end: u64);

    /// Why nothing can be made durable until the whole is replaced, if so.
    fn fault(&self) -> Option<&Error>;

    /// Begins to replace all records that are there now by fewer, which are written elsewhere while this goes on taking records.
    /// Of several, the last one counts.
    fn begin_replacement(&mut self) -> Replacement;

    /// Puts a finished replacement in place, with all that was appended since it was begun. Heals a fault.
    fn adopt(&mut self, replaced: Replaced) -> Result<Retired>;

    /// Replaces all records by the given ones, at once.
    fn replace(&mut self, records: &[String]) -> Result<()> {
        let replaced = self.begin_replacement().write(records)?;
        self.adopt(replaced).map(drop)
    }
}
