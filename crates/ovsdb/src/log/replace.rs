//! Replacing a log by a shorter one while it goes on growing.
//!
//! The steps, and what a crash after each leaves: write `FILE.tmp` and synchronise it (the old file, and a leftover that the next attempt
//! removes); copy what was appended to the old file meanwhile, in rounds, until little is left; then, back with the owner of the
//! log: copy the rest, synchronise, rename over the old file, synchronise the directory. A record that was durable in the old
//! file is durable in the new one before that gets its name.
//!
//! All but the last round and the rename may be done in any thread. There is no time at which both files take records, so nothing has to be
//! merged. The temporary file has one name, hence one owner: the replacement that was begun last. Older ones stop when they
//! notice ([`Turn`]).

use super::disk::{Disk, DiskFile, OpenMode, read_full, write_all};
use super::record::{MAGIC, header};
use crate::error::{Error, IO_ERROR, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How much is written before the disk is waited for. A disk that has a large file to write at once makes everybody else
/// who waits for it wait for that file too.
const SYNC_BYTES: usize = 8 << 20;
/// So much may be left to copy for the log's owner.
const LAST_ROUND_BYTES: u64 = 64 << 10;
/// More rounds than this mean that the log grows as fast as it is copied.
const MAX_ROUNDS: usize = 20;

/// Whose turn it is to replace a log. Shared by the log and its replacements.
#[derive(Default)]
pub(super) struct Turn {
    /// The number of the replacement that is valid; grows when another is begun, or when what it was made from is void.
    current: AtomicU64,
    /// Held while the temporary file is written.
    writing: Mutex<()>,
}

impl Turn {
    /// Makes all replacements void that were begun before, and returns the number of the next.
    pub(super) fn advance(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// A file that is to take another's place.
pub struct Replacement {
    pub(super) disk: Arc<dyn Disk>,
    /// The file that is replaced, and up to where it holds good records.
    pub(super) old: Arc<dyn DiskFile>,
    pub(super) old_end: Arc<AtomicU64>,
    /// What was appended from here on is to be copied.
    pub(super) since: u64,
    pub(super) name: String,
    pub(super) temporary: PathBuf,
    pub(super) target: PathBuf,
    pub(super) turn: Arc<Turn>,
    /// The number that is valid for this one.
    pub(super) number: u64,
}

/// A [`Replacement`] that is written.
pub struct Replaced {
    pub(super) from: Replacement,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
    /// Up to where the old file's records are in the new one.
    pub(super) copied: u64,
}

/// A file that was replaced. Dropping it may give a lot of disk space back, which takes time: best done where nobody waits.
pub struct Retired(#[allow(dead_code, reason = "held for its drop")] pub(super) Option<Arc<dyn DiskFile>>);

/// What went wrong: the system's reason, and in which call.
type Failure = (std::io::Error, &'static str);

/// Writes a file from its beginning, and waits for the disk every now and then.
struct Writer<'a> {
    from: &'a Replacement,
    file: &'a dyn DiskFile,
    at: u64,
    unsynced: usize,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for chunk in bytes.chunks(SYNC_BYTES) {
            write_all(self.file, chunk, self.at).map_err(|e| (e, "write failed"))?;
            self.at += chunk.len() as u64;
            self.unsynced += chunk.len();
            if self.unsynced >= SYNC_BYTES {
                self.sync()?;
                if !self.from.is_current() {
                    return Err((std::io::ErrorKind::Interrupted.into(), "superseded"));
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.unsynced = 0;
        self.file.sync().map_err(|e| (e, "fsync failed"))
    }
}

impl Replacement {
    /// Writes the records and what was appended to the log meanwhile, and waits for the disk. Callable from any thread.
    pub fn write(self, records: &[String]) -> Result<Replaced> {
        let turn = self.turn.clone();
        let _writing = turn.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_current() {
            return Err(Error::new(IO_ERROR, format!("{}: superseded", self.temporary.display())));
        }
        let failed =
            |e: std::io::Error, what: &str| Error::io(&e, format!("{}: {what}", self.temporary.display()));
        // What an earlier attempt left behind.
        let _ = self.disk.remove(&self.temporary);
        let file = self
            .disk
            .open(&self.temporary, OpenMode::CreateExcl, self.old.permissions())
            .map_err(|e| failed(e, "create failed"))?;
        let written = self.fill(&file, records);
        match written {
            Ok((size, copied)) => Ok(Replaced { from: self, file, size, copied }),
            Err((e, what)) => {
                // A disk that is full should not be kept full.
                let _ = self.disk.remove(&self.temporary);
                Err(failed(e, what))
            }
        }
    }

    fn fill(&self, file: &Arc<dyn DiskFile>, records: &[String]) -> Result<(u64, u64), Failure> {
        let mut writer = Writer { from: self, file: &**file, at: 0, unsynced: 0 };
        for record in records {
            for part in [header(MAGIC, record).as_bytes(), record.as_bytes(), b"\n"] {
                writer.write(part)?;
            }
        }
        writer.sync()?;
        let mut copied = self.since;
        for _ in 0..MAX_ROUNDS {
            let end = self.old_end.load(Ordering::Acquire);
            if end <= copied + LAST_ROUND_BYTES {
                break;
            }
            copy(&*self.old, copied..end, &**file, writer.at)?;
            writer.sync()?;
            writer.at += end - copied;
            copied = end;
        }
        Ok((writer.at, copied))
    }

    /// True as long as no other replacement was begun, and what this one is made from holds.
    pub(super) fn is_current(&self) -> bool {
        self.turn.current.load(Ordering::Acquire) == self.number
    }
}

impl Replaced {
    /// Brings the file up to date with `old_end` bytes of the old one and gives it its name.
    pub(super) fn finish(&mut self, old_end: u64) -> Result<()> {
        let name = &self.from.name;
        let failed = |e: std::io::Error, what: &str| Error::io(&e, format!("{name}: {what}"));
        if old_end > self.copied {
            copy(&*self.from.old, self.copied..old_end, &*self.file, self.size)
                .map_err(|(e, what)| failed(e, what))?;
            self.size += old_end - self.copied;
            self.copied = old_end;
            self.file.sync().map_err(|e| failed(e, "fsync failed"))?;
        }
        let (disk, from) = (&self.from.disk, &self.from);
        disk.rename(&from.temporary, &from.target).map_err(|e| {
            Error::io(&e, format!("failed to rename \"{}\" to \"{name}\"", from.temporary.display()))
        })
    }

    /// Removes the file: it is not wanted any more.
    pub fn discard(self) {
        if self.from.is_current() {
            // A file that stays behind is removed by the next attempt.
            let _ = self.from.disk.remove(&self.from.temporary);
        }
    }
}

/// Copies a range of `from` to `to` at `at`.
fn copy(
    from: &dyn DiskFile,
    range: std::ops::Range<u64>,
    to: &dyn DiskFile,
    mut at: u64,
) -> Result<(), Failure> {
    let mut next = range.start;
    let mut buf = vec![0; usize::try_from(range.end - range.start).unwrap_or(1 << 20).min(1 << 20)];
    while next < range.end {
        let n = usize::try_from(range.end - next).unwrap_or(buf.len()).min(buf.len());
        let read = read_full(from, &mut buf[..n], next).map_err(|e| (e, "read failed"))?;
        if read < n {
            return Err((std::io::ErrorKind::UnexpectedEof.into(), "read failed"));
        }
        write_all(to, &buf[..n], at).map_err(|e| (e, "write failed"))?;
        next += n as u64;
        at += n as u64;
    }
    Ok(())
}
