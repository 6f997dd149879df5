//! The log of a standalone database: one file.
//!
//! An append is one write behind the last good record. Errors leave the file as it was, as far as the disk permits: what was written of
//! a record is cut off at once, or else before the next append. Messages name the file as the user wrote it.

use super::Storage;
use super::disk::{Disk, DiskFile, OpenMode, OsDisk, read_full, write_all};
use super::record::{CLUSTER_MAGIC, MAGIC, MAX_HEADER, Reader, Record, TextRecord, frame, frame_into};
use super::replace::{Replaced, Replacement, Retired, Turn};
use crate::error::{Error, Result};
use ib_base::json::{Json, JsonError};
use ib_base::vlog::module::OVSDB_LOG;
use ib_base::vlog_warn_rl;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The permissions of new files, before the umask.
const NEW_FILE_PERMISSIONS: u32 = 0o660;

/// Takes the lock that goes with a file before it is opened for writing, and keeps it until dropped. The machine's
/// lock calls are not this crate's; whoever opens a file brings them.
pub type Locker = dyn Fn(&Path) -> std::io::Result<Box<dyn Send>>;

/// An open database file.
pub struct Log {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    name: String,
    reader: Option<Reader>,
    file: Arc<dyn DiskFile>,
    /// Everything before is good; the next record goes here. Shared with a replacement under way.
    end: Arc<AtomicU64>,
    /// Bytes behind `end` have to be cut off before the next append.
    has_tail: bool,
    /// The file's name may not be on the disk yet.
    name_unsynced: bool,
    read_error: Option<Error>,
    fault: Option<Error>,
    /// Which replacement may take this file's place.
    turn: Arc<Turn>,
    /// Kept for as long as the file is open.
    _lock: Option<Box<dyn Send>>,
}

/// The name of the lock file that goes with `path`: `.NAME.~lock~` beside it.
pub fn lock_path(path: &Path) -> PathBuf {
    // Only a link is followed, so that the name shows up in messages as the user wrote it.
    let target = match std::fs::read_link(path) {
        Ok(_) => std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        Err(_) => path.to_path_buf(),
    };
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.~lock~"))
}

/// True if the file is that of a cluster's member. False if it can't be read: opening it will say why.
pub fn is_cluster(path: &Path) -> bool {
    let magic = format!("OVSDB {CLUSTER_MAGIC} ");
    let mut start = vec![0; magic.len()];
    let file = OsDisk.open(path, OpenMode::ReadOnly, 0);
    file.and_then(|f| read_full(&*f, &mut start, 0)).is_ok_and(|n| start[..n] == *magic.as_bytes())
}

impl Log {
    /// Opens or creates a file. With a `locker`, writable files are locked first.
    pub fn open(path: &Path, mode: OpenMode, locker: Option<&Locker>) -> Result<Log> {
        Log::open_on(Arc::new(OsDisk), path, mode, locker)
    }

    /// As [`Log::open`], on a disk of the caller's choice.
    pub fn open_on(disk: Arc<dyn Disk>, path: &Path, mode: OpenMode, locker: Option<&Locker>) -> Result<Log> {
        let name = path.display().to_string();
        let lock = match locker {
            Some(locker) if mode != OpenMode::ReadOnly => Some(
                locker(&lock_path(path))
                    .map_err(|e| Error::io(&e, format!("{name}: failed to lock lockfile")))?,
            ),
            _ => None,
        };
        let verb = if matches!(mode, OpenMode::CreateExcl) { "create" } else { "open" };
        let file = disk
            .open(path, mode, NEW_FILE_PERMISSIONS)
            .map_err(|e| Error::io(&e, format!("{name}: {verb} failed")))?;
        let size = file.size().map_err(|e| Error::io(&e, format!("{name}: fstat failed")))?;
        if size == 0 && matches!(mode, OpenMode::ReadOnly | OpenMode::ReadWrite) {
            return Err(Error::new("ovsdb error", format!("{name}: cannot identify file type")));
        }
        let mut reader = None;
        if size > 0 {
            let mut start = [0; 14];
            let n =
                read_full(&*file, &mut start, 0).map_err(|e| Error::io(&e, format!("{name}: read error")))?;
            if start[..n].starts_with(format!("OVSDB {CLUSTER_MAGIC} ").as_bytes()) {
                let message = format!("{name}: cannot apply this operation to clustered database file");
                return Err(Error::new("ovsdb error", message));
            }
            if !start[..n].starts_with(format!("OVSDB {MAGIC} ").as_bytes()) {
                return Err(Error::new("ovsdb error", format!("{name}: unexpected file format")));
            }
            reader = Some(Reader::new(file.clone(), size));
        }
        Ok(Log {
            // The file must be found again when a daemon has changed its directory.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
            name,
            reader,
            file,
            disk,
            end: Arc::new(AtomicU64::new(0)),
            has_tail: false,
            name_unsynced: size == 0,
            read_error: None,
            fault: None,
            turn: Arc::default(),
            _lock: lock,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next record, parsed; see [`Storage::read_text`].
    pub fn read(&mut self) -> Result<Option<Record>> {
        let Some(record) = self.read_text()? else { return Ok(None) };
        match Json::parse_bytes(&record.data) {
            Ok(json @ Json::Object(_)) => Ok(Some(Record { offset: record.offset, json })),
            Ok(_) => Err(self.bad_record(&record, "a JSON object", String::new())),
            Err(e) => Err(self.not_json(&record, &e)),
        }
    }

    /// Ends reading at `record`, which is not what it should be.
    fn bad_record(&mut self, record: &TextRecord, what: &str, why: String) -> Error {
        let error = Error::syntax_plain(format!(
            "{}: {} bytes starting at offset {} are not {what}{why}",
            self.name,
            record.data.len(),
            record.data_offset
        ));
        self.unread(record.offset);
        self.read_error = Some(error.clone());
        error
    }

    /// Notes a failure of the system in the log file, and makes the error for whoever asked.
    fn failed(&self, error: &std::io::Error, what: &str) -> Error {
        let why = ib_base::errno::strerror(error);
        vlog_warn_rl!(OVSDB_LOG, (5, 5), "{}: {what} failed ({why})", self.path.display());
        Error::io(error, format!("{}: {what} failed", self.name))
    }

    /// Cuts off what is behind the good records. It must not come back behind later ones when the machine stops, hence the wait.
    fn cut_tail(&mut self) -> Result<()> {
        self.has_tail = true;
        self.file.truncate(self.end()).map_err(|e| self.failed(&e, "write"))?;
        self.has_tail = false;
        if self.fault.is_none() {
            // A failure is a fault; what needs no disk goes on.
            let _ = self.sync_file();
        }
        Ok(())
    }

    /// Synchronises the file. What could not be synchronised is lost: no later attempt would write it.
    fn sync_file(&mut self) -> Result<()> {
        self.file.sync().map_err(|e| {
            let error = self.failed(&e, "fsync");
            self.fault.get_or_insert(error).clone()
        })
    }

    /// Puts the file in the place of another, which `replaced` was made from.
    fn switch(&mut self, replaced: Replaced) -> Retired {
        let old = std::mem::replace(&mut self.file, replaced.file);
        // The replaced file's end stays with whoever may be reading that file.
        self.end = Arc::new(AtomicU64::new(replaced.size));
        self.turn.advance();
        self.has_tail = false;
        self.name_unsynced = true;
        self.read_error = None;
        self.reader = None;
        self.fault = None;
        Retired(Some(old))
    }

    /// Appends framed records: all of them or nothing.
    fn append_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader = None;
        if self.has_tail {
            self.cut_tail()?;
            self.read_error = None;
        }
        let end = self.end();
        if let Err(e) = write_all(&*self.file, bytes, end) {
            // A part may be there; the next append cuts it off if this cannot.
            self.has_tail = self.file.truncate(end).is_err();
            return Err(self.failed(&e, "write"));
        }
        self.end.store(end + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    fn sync_name(&mut self) -> Result<()> {
        if self.name_unsynced {
            let target = self.disk.resolve(&self.path);
            self.disk.sync_directory_of(&target).map_err(|e| self.failed(&e, "fsync"))?;
            self.name_unsynced = false;
        }
        Ok(())
    }
}

impl Storage for Log {
    fn name(&self) -> &str {
        &self.name
    }

    fn read_text(&mut self) -> Result<Option<TextRecord>> {
        if let Some(error) = &self.read_error {
            return Err(error.clone());
        }
        let offset = self.end();
        let Some(reader) = &mut self.reader else { return Ok(None) };
        match reader.record(&self.name, offset) {
            Ok(Some(record)) => {
                self.end.store(record.data_offset + record.data.len() as u64, Ordering::Release);
                Ok(Some(record))
            }
            Ok(None) => {
                self.reader = None;
                Ok(None)
            }
            Err(error) => {
                self.reader = None;
                self.has_tail = true;
                self.read_error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn not_json(&mut self, record: &TextRecord, fault: &JsonError) -> Error {
        match Json::parse_bytes(&record.data) {
            Ok(_) => self.bad_record(record, "a JSON object", String::new()),
            Err(_) => self.bad_record(record, "valid JSON", format!(" ({fault})")),
        }
    }

    fn unread(&mut self, offset: u64) {
        self.end.store(offset, Ordering::Release);
        self.has_tail = true;
        self.reader = None;
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    fn append(&mut self, record: &str) -> Result<()> {
        self.append_bytes(&frame(MAGIC, record))
    }

    fn append_all(&mut self, records: &[String]) -> Result<()> {
        let mut bytes = Vec::with_capacity(records.iter().map(|r| r.len() + MAX_HEADER).sum());
        records.iter().for_each(|record| frame_into(MAGIC, record, &mut bytes));
        self.append_bytes(&bytes)
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.sync_file()?;
        self.sync_name()
    }

    fn take_back(&mut self, end: u64) {
        if end < self.end() {
            self.end.store(end, Ordering::Release);
            // A replacement may have copied them.
            self.turn.advance();
            // If it fails now the next append tries again.
            let _ = self.cut_tail();
        }
    }

    fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    fn begin_replacement(&mut self) -> Replacement {
        let target = self.disk.resolve(&self.path);
        let mut temporary = target.clone().into_os_string();
        temporary.push(".tmp");
        Replacement {
            disk: self.disk.clone(),
            old: self.file.clone(),
            old_end: self.end.clone(),
            since: self.end(),
            name: self.name.clone(),
            temporary: temporary.into(),
            target,
            number: self.turn.advance(),
            turn: self.turn.clone(),
        }
    }

    fn adopt(&mut self, mut replaced: Replaced) -> Result<Retired> {
        if !replaced.from.is_current() {
            // It was made from records that are no longer these, or a later one has taken its place.
            return Ok(Retired(None));
        }
        if let Err(error) = replaced.finish(self.end()) {
            replaced.discard();
            return Err(error);
        }
        let retired = self.switch(replaced);
        self.sync_name()?;
        Ok(retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ib-ovsdb-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("x.db")
    }

    fn records(path: &Path) -> (Vec<String>, Option<String>) {
        let mut log = Log::open(path, OpenMode::ReadOnly, None).unwrap();
        let mut out = Vec::new();
        loop {
            match log.read() {
                Ok(Some(record)) => out.push(record.json.to_string()),
                Ok(None) => return (out, None),
                Err(e) => return (out, Some(e.to_string())),
            }
        }
    }

    /// Whatever the length at which a crash cuts the file, whole records stay and appending goes on behind them.
    #[test]
    fn torn_tail_is_cut_off_at_every_length() {
        let path = temp("torn");
        let mut log = Log::open(&path, OpenMode::CreateExcl, None).unwrap();
        log.append("{\"a\":1}").unwrap();
        let first = log.end();
        log.append("{\"b\":2}").unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in first..whole.len() as u64 {
            std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let mut log = Log::open(&path, OpenMode::ReadWrite, None).unwrap();
            assert_eq!(log.read().unwrap().unwrap().json.to_string(), "{\"a\":1}");
            assert_eq!(log.read().is_err(), cut > first, "cut at {cut}");
            log.append("{\"c\":3}").unwrap();
            drop(log);
            assert_eq!(records(&path), (vec!["{\"a\":1}".to_string(), "{\"c\":3}".to_string()], None));
        }
    }

    #[test]
    fn damage_is_named() {
        let path = temp("damage");
        std::fs::write(&path, "hello").unwrap();
        let fail = || Log::open(&path, OpenMode::ReadOnly, None).err().unwrap().to_string();
        let name = path.display();
        assert_eq!(fail(), format!("ovsdb error: {name}: unexpected file format"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(fail(), format!("ovsdb error: {name}: cannot identify file type"));
        std::fs::write(&path, "OVSDB CLUSTER 5 x").unwrap();
        assert!(fail().contains("clustered database file"));
        let mut bytes = frame(MAGIC, "{}");
        let n = bytes.len();
        bytes[n - 2] = b'x';
        std::fs::write(&path, &bytes).unwrap();
        assert!(records(&path).1.unwrap().contains("have SHA-1 hash"));
        bytes = frame(MAGIC, "{}");
        bytes.truncate(n - 2);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            records(&path).1.unwrap(),
            format!("I/O error: {name}: error reading 3 bytes starting at offset 54 (End of file)")
        );
    }

    /// Large records are summed while they are read.
    #[test]
    fn large_records_are_read_and_torn_ones_noticed() {
        let path = temp("large");
        let mut log = Log::open(&path, OpenMode::CreateExcl, None).unwrap();
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(5_300_000));
        for record in ["{\"a\":1}", &large, "{\"b\":2}"] {
            log.append(record).unwrap();
        }
        drop(log);
        assert_eq!(records(&path), (vec!["{\"a\":1}".into(), large.clone(), "{\"b\":2}".into()], None));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3_000_000] = b'z';
        std::fs::write(&path, &bytes).unwrap();
        let (whole, error) = records(&path);
        assert_eq!(whole.len(), 1);
        assert!(error.unwrap().contains("5300009 bytes starting at offset 122 have SHA-1 hash"));
        bytes.truncate(4_500_000);
        std::fs::write(&path, &bytes).unwrap();
        assert!(records(&path).1.unwrap().contains("error reading 5300009 bytes starting at offset 122"));
    }

    #[test]
    fn replacement_is_whole_and_goes_on() {
        let path = temp("replace");
        let mut log = Log::open(&path, OpenMode::CreateExcl, None).unwrap();
        log.append("{\"a\":1}").unwrap();
        log.replace(&["{\"s\":0}".to_string(), "{\"t\":1}".to_string()]).unwrap();
        log.append("{\"u\":2}").unwrap();
        log.flush().unwrap();
        assert_eq!(records(&path).0, ["{\"s\":0}", "{\"t\":1}", "{\"u\":2}"]);
        assert!(Log::open(&path, OpenMode::CreateExcl, None).is_err());
    }
}
