//! Database files: a sequence of JSON records, each behind a line with its length and SHA-1.
//!
//! ```text
//! OVSDB JSON 132 b6b809168873f035d4f239538c9aec8aa69ef2e4
//! {"_date":1795384278968,"D":{"56276533-...":{"name":"q","k2":1}}}
//! ```
//!
//! The first record is the schema, the others are transactions. A record counts once it is whole: readers stop at the first that
//! is not, and the next append cuts off what is behind the last good one. An append is one `write`; a transaction whose
//! append returned survives the end of the process, and with [`Log::commit`] that of the machine.
//!
//! Files of clusters begin with `OVSDB CLUSTER`; they are recognised and refused.

use crate::error::{Error, Result};
use ib_base::json::{Json, JsonError};
use sha1::{Digest, Sha1};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The magic word of standalone databases.
pub const MAGIC: &str = "JSON";
/// The magic word of members of a cluster.
pub const CLUSTER_MAGIC: &str = "CLUSTER";
/// A record may have at most this many bytes.
const MAX_RECORD: u64 = 4 << 30;
/// A header line may have at most this many bytes.
const MAX_HEADER: usize = 128;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; nothing will be written.
    ReadOnly,
    /// It must exist.
    ReadWrite,
    /// It must not exist.
    CreateExcl,
    /// It may exist.
    Create,
}

/// Takes the lock that goes with a file before it is opened for writing, and keeps it until dropped. The machine's
/// lock calls are not this crate's; whoever opens a file brings them.
pub type Locker = dyn Fn(&Path) -> std::io::Result<Box<dyn Send>>;

/// An open database file.
pub struct Log {
    path: PathBuf,
    name: String,
    reader: Option<BufReader<File>>,
    file: File,
    /// Everything before is good; the next record goes here.
    offset: u64,
    /// Bytes behind `offset` have to be cut off before the next append.
    has_tail: bool,
    read_error: Option<Error>,
    /// Changes when another file takes this one's place.
    generation: u64,
    /// Kept for as long as the file is open.
    _lock: Option<Box<dyn Send>>,
}

/// One record: where it began and what it says.
pub struct Record {
    /// Offset of its header.
    pub offset: u64,
    /// Its content.
    pub json: Json,
}

/// One record, whose checksum is right, not parsed yet.
pub struct TextRecord {
    /// Offset of its header.
    pub offset: u64,
    /// Offset of its content.
    pub data_offset: u64,
    /// Its content.
    pub data: Vec<u8>,
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

impl Log {
    /// Opens or creates a file. With a `locker`, writable files are locked first.
    pub fn open(path: &Path, mode: OpenMode, locker: Option<&Locker>) -> Result<Log> {
        let name = path.display().to_string();
        let lock = match locker {
            Some(locker) if mode != OpenMode::ReadOnly => Some(
                locker(&lock_path(path))
                    .map_err(|e| Error::io(&e, format!("{name}: failed to lock lockfile")))?,
            ),
            _ => None,
        };
        let mut options = OpenOptions::new();
        options.read(true).mode(0o660);
        match mode {
            OpenMode::ReadOnly => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateExcl => {
                options.write(true).create_new(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
        }
        let verb = if matches!(mode, OpenMode::CreateExcl) { "create" } else { "open" };
        let file = options.open(path).map_err(|e| Error::io(&e, format!("{name}: {verb} failed")))?;
        let size = file.metadata().map_err(|e| Error::io(&e, format!("{name}: fstat failed")))?.len();
        let mut log = Log {
            // The file must be found again when a daemon has changed its directory.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
            name,
            reader: None,
            file,
            offset: 0,
            has_tail: false,
            read_error: None,
            generation: 0,
            _lock: lock,
        };
        if size == 0 {
            if matches!(mode, OpenMode::ReadOnly | OpenMode::ReadWrite) {
                return Err(Error::new("ovsdb error", format!("{}: cannot identify file type", log.name)));
            }
            return Ok(log);
        }
        let reading =
            log.file.try_clone().map_err(|e| Error::io(&e, format!("{}: open failed", log.name)))?;
        let mut reader = BufReader::with_capacity(1 << 20, reading);
        let mut start = [0; 14];
        let n = read_full(&mut reader, &mut start)
            .map_err(|e| Error::io(&e, format!("{}: read failed", log.name)))?;
        let start = &start[..n];
        if start.starts_with(format!("OVSDB {CLUSTER_MAGIC} ").as_bytes()) {
            let message = format!("{}: clustered databases are not supported yet", log.name);
            return Err(Error::new("ovsdb error", message));
        }
        if !start.starts_with(format!("OVSDB {MAGIC} ").as_bytes()) {
            return Err(Error::new("ovsdb error", format!("{}: unexpected file format", log.name)));
        }
        reader.seek(SeekFrom::Start(0)).map_err(|e| Error::io(&e, format!("{}: read failed", log.name)))?;
        log.reader = Some(reader);
        Ok(log)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of good records.
    pub fn size(&self) -> u64 {
        self.offset
    }

    /// The next record; none at the end. After an error there are no more records, and the error repeats.
    pub fn read(&mut self) -> Result<Option<Record>> {
        let Some(record) = self.read_text()? else { return Ok(None) };
        match Json::parse_bytes(&record.data) {
            Ok(json) => Ok(Some(Record { offset: record.offset, json })),
            Err(e) => Err(self.not_json(&record, &e)),
        }
    }

    /// The next record, not parsed; see [`Log::read`].
    pub fn read_text(&mut self) -> Result<Option<TextRecord>> {
        if let Some(error) = &self.read_error {
            return Err(error.clone());
        }
        match self.read_record() {
            Ok(Some(record)) => Ok(Some(record)),
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

    /// Declares the record that was read last bad because it is no JSON, and makes the error that says so.
    pub fn not_json(&mut self, record: &TextRecord, fault: &JsonError) -> Error {
        let error = Error::syntax_plain(format!(
            "{}: {} bytes starting at offset {} are not valid JSON ({fault})",
            self.name,
            record.data.len(),
            record.data_offset
        ));
        self.unread(record.offset);
        self.read_error = Some(error.clone());
        error
    }

    /// Declares the record at `offset`, which was read last, and all behind it bad: its content makes no sense.
    pub fn unread(&mut self, offset: u64) {
        self.offset = offset;
        self.has_tail = true;
        self.reader = None;
    }

    fn read_record(&mut self) -> Result<Option<TextRecord>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let name = &self.name;
        let mut header = Vec::new();
        loop {
            let mut byte = [0];
            match reader.read(&mut byte) {
                Ok(0) if header.is_empty() => return Ok(None),
                Ok(0) => break,
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) if header.len() >= MAX_HEADER => break,
                Ok(_) => header.push(byte[0]),
                Err(e) => return Err(Error::io(&e, format!("{name}: read failed"))),
            }
        }
        let Some((length, sha1)) = parse_header(&header) else {
            let shown = String::from_utf8_lossy(&header);
            // Like the original, show a header that is cut short only as far as it is one.
            let shown = if shown.starts_with("OVSDB JSON") { "OVSDB JSON" } else { &shown };
            let message = format!("{name}: parse error at offset {} in header line \"{shown}\"", self.offset);
            return Err(Error::syntax_plain(message));
        };
        let data_offset = self.offset + header.len() as u64 + 1;
        let mut data = Vec::new();
        let read = reader.by_ref().take(length).read_to_end(&mut data);
        if let Err(e) = read {
            return Err(Error::io(
                &e,
                format!("{name}: error reading {length} bytes starting at offset {data_offset}"),
            ));
        }
        if (data.len() as u64) < length {
            let message = format!("{name}: error reading {length} bytes starting at offset {data_offset}");
            return Err(Error::io_eof(message));
        }
        let actual = sha1_hex(&data);
        if actual.as_bytes() != sha1 {
            return Err(Error::syntax_plain(format!(
                "{name}: {length} bytes starting at offset {data_offset} have SHA-1 hash {actual} but should have hash {}",
                String::from_utf8_lossy(&sha1)
            )));
        }
        let offset = std::mem::replace(&mut self.offset, data_offset + length);
        Ok(Some(TextRecord { offset, data_offset, data }))
    }

    /// Appends a record, which must be one line of JSON without its line feed. When this returns success, the record survives the
    /// end of the process.
    pub fn append(&mut self, record: &str) -> Result<()> {
        self.reader = None;
        let name = self.name.clone();
        let failed = |e: std::io::Error| Error::io(&e, format!("{name}: write failed"));
        if self.has_tail {
            self.file.set_len(self.offset).map_err(failed)?;
            self.has_tail = false;
            self.read_error = None;
        }
        let bytes = frame(MAGIC, record);
        let written = self.file.write_all_at(&bytes, self.offset);
        if let Err(e) = written {
            // A part of the record may be there; the next append cuts it off if this cannot.
            self.has_tail = self.file.set_len(self.offset).is_err();
            return Err(failed(e));
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Waits until everything appended is on the disk.
    pub fn commit(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&e, format!("{}: fsync failed", self.name)))
    }

    /// What a compaction elsewhere needs to know: where to write, with which permissions. What is appended
    /// from now on is carried over by [`Log::adopt`].
    pub fn begin_replacement(&self) -> Replacement {
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut temporary = target.clone().into_os_string();
        temporary.push(".tmp");
        let mode = self.file.metadata().map_or(0o640, |m| m.permissions().mode() & 0o7777);
        Replacement {
            temporary: temporary.into(),
            target,
            mode,
            since: self.offset,
            generation: self.generation,
        }
    }

    /// Puts a finished replacement in the file's place, atomically: whoever opens the file finds the old one or the new one,
    /// with all that was appended meanwhile.
    pub fn adopt(&mut self, replaced: Replaced) -> Result<()> {
        if replaced.from.generation != self.generation {
            // Another file has taken the place of the one that this was made from.
            replaced.discard();
            return Ok(());
        }
        let Replaced { from, file, mut size } = replaced;
        let name = self.name.clone();
        let failed = |e: std::io::Error, what: &str| Error::io(&e, format!("{name}: {what}"));
        let mut at = from.since;
        let mut buf = vec![0; 1 << 16];
        while at < self.offset {
            let n = usize::try_from(self.offset - at).unwrap_or(buf.len()).min(buf.len());
            self.file.read_exact_at(&mut buf[..n], at).map_err(|e| failed(e, "read failed"))?;
            file.write_all_at(&buf[..n], size).map_err(|e| failed(e, "write failed"))?;
            at += n as u64;
            size += n as u64;
        }
        file.sync_data().map_err(|e| failed(e, "fsync failed"))?;
        std::fs::rename(&from.temporary, &from.target).map_err(|e| {
            Error::io(&e, format!("failed to rename \"{}\" to \"{name}\"", from.temporary.display()))
        })?;
        if let Some(directory) = from.target.parent().and_then(|d| File::open(d).ok()) {
            // The rename itself must survive a crash; a directory that cannot be synchronised is not worth failing for.
            let _ = directory.sync_all();
        }
        self.file = file;
        self.offset = size;
        self.generation += 1;
        self.has_tail = false;
        self.read_error = None;
        self.reader = None;
        Ok(())
    }

    /// Replaces the whole file by the given records, atomically.
    pub fn replace(&mut self, records: &[String]) -> Result<()> {
        let replaced = self.begin_replacement().write(records)?;
        self.adopt(replaced)
    }

    pub(crate) fn redirect_for_test(&mut self, file: File) {
        self.file = file;
    }
}

/// A file that is to take another's place.
pub struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
    mode: u32,
    since: u64,
    generation: u64,
}

/// A [`Replacement`] that is written.
pub struct Replaced {
    from: Replacement,
    file: File,
    size: u64,
}

impl Replaced {
    /// Removes the file: it is not wanted any more.
    pub fn discard(self) {
        // A file that stays behind is removed by the next attempt.
        let _ = std::fs::remove_file(&self.from.temporary);
    }
}

impl Replacement {
    /// Writes the records and waits for the disk. Callable from any thread.
    pub fn write(self, records: &[String]) -> Result<Replaced> {
        let failed =
            |e: std::io::Error, what: &str| Error::io(&e, format!("{}: {what}", self.temporary.display()));
        // What an earlier attempt left behind.
        let _ = std::fs::remove_file(&self.temporary);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(self.mode)
            .open(&self.temporary)
            .map_err(|e| failed(e, "create failed"))?;
        let mut size = 0;
        for record in records {
            let header = header(MAGIC, record);
            let written = file.write_all(header.as_bytes()).and_then(|()| file.write_all(record.as_bytes()));
            written.and_then(|()| file.write_all(b"\n")).map_err(|e| failed(e, "write failed"))?;
            size += (header.len() + record.len() + 1) as u64;
        }
        file.sync_data().map_err(|e| failed(e, "fsync failed"))?;
        Ok(Replaced { from: self, file, size })
    }
}

fn read_full(reader: &mut impl Read, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match reader.read(&mut buf[n..])? {
            0 => break,
            k => n += k,
        }
    }
    Ok(n)
}

fn parse_header(line: &[u8]) -> Option<(u64, Vec<u8>)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.strip_prefix("OVSDB ")?.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
    let length: u64 = words.next()?.parse().ok()?;
    let sha1 = words.next()?.as_bytes();
    let valid =
        length > 0 && length < MAX_RECORD && sha1.len() == 40 && sha1.iter().all(u8::is_ascii_hexdigit);
    (valid && words.next().is_none()).then(|| (length, sha1.to_ascii_lowercase()))
}

fn sha1_hex(data: &[u8]) -> String {
    hex(&Sha1::digest(data))
}

fn hex(digest: &[u8]) -> String {
    let mut out = String::with_capacity(2 * digest.len());
    for byte in digest {
        out.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    out
}

/// The header line of a record.
fn header(magic: &str, record: &str) -> String {
    let mut hasher = Sha1::new();
    hasher.update(record.as_bytes());
    hasher.update(b"\n");
    format!("OVSDB {magic} {} {}\n", record.len() + 1, hex(&hasher.finalize()))
}

/// The bytes of a record: header line, content, line feed.
pub fn frame(magic: &str, record: &str) -> Vec<u8> {
    let header = header(magic, record);
    let mut out = Vec::with_capacity(header.len() + record.len() + 1);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(record.as_bytes());
    out.push(b'\n');
    out
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

    #[test]
    fn frames_as_the_original_does() {
        let record = r#"{"_date":1795384296259,"M":{"862597bd-0eb9-4b35-8606-529eac4f2742":{"name":"m2"}},"_is_diff":true}"#;
        let expect = format!("OVSDB JSON 99 86ec74be6133b02f30d8f3dd46435b212ab7b0f6\n{record}\n");
        assert_eq!(frame(MAGIC, record), expect.as_bytes());
    }

    /// Whatever the length at which a crash cuts the file, whole records stay and appending goes on behind them.
    #[test]
    fn torn_tail_is_cut_off_at_every_length() {
        let path = temp("torn");
        let mut log = Log::open(&path, OpenMode::CreateExcl, None).unwrap();
        log.append("{\"a\":1}").unwrap();
        let first = log.size();
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
        assert!(fail().contains("not supported"));
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

    #[test]
    fn replacement_is_whole_and_goes_on() {
        let path = temp("replace");
        let mut log = Log::open(&path, OpenMode::CreateExcl, None).unwrap();
        log.append("{\"a\":1}").unwrap();
        log.replace(&["{\"s\":0}".to_string(), "{\"t\":1}".to_string()]).unwrap();
        log.append("{\"u\":2}").unwrap();
        log.commit().unwrap();
        assert_eq!(records(&path).0, ["{\"s\":0}", "{\"t\":1}", "{\"u\":2}"]);
        assert!(Log::open(&path, OpenMode::CreateExcl, None).is_err());
    }
}
