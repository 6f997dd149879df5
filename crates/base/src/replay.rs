//! Recording of what a program is told from outside, and replay of a record.
//!
//! `--record=DIR` keeps all that streams receive, the connections that listeners take and the UUIDs that are made, each source in a
//! file of DIR; `--replay=DIR` runs the program on such files, without sockets, so that a fault can be looked at again and again. The
//! format is Open vSwitch's (ovs-replay(7)): a file is a list of records, each a number, a length and so many bytes, the numbers in
//! the order of events over all files. A negative length is an error's number; 0 is the end of a stream, or success. Records that
//! say only that there was nothing to read, or how much was sent, are passed over: the other program's records can be read, though it
//! makes UUIDs in another order.
//!
//! Events that one turn of the loop took in come in one turn again: [`next_turn`] leaves a gap in the numbers, and a replay ends a
//! turn where there is a gap. The clock is not recorded, so what depends on timeouts may differ.
//!
//! The whole program records, replays or, as a rule, neither, which costs one look at an atomic.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::errno::strerror;
use crate::vlog::Level;
use crate::vlog::module::OVS_REPLAY;

/// What the program does with its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Neither of the others.
    Off,
    /// It is recorded.
    Record,
    /// It comes from a record.
    Replay,
}

static MODE: AtomicU8 = AtomicU8::new(0);
static STATE: Mutex<State> = Mutex::new(State::new());

/// The source of UUIDs.
const UUIDS: &str = "_uuid_generate";
const EAGAIN: i32 = 11;
const EIO: i32 = 5;

/// What the program does.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        1 => Mode::Record,
        2 => Mode::Replay,
        _ => Mode::Off,
    }
}

struct Record {
    number: u32,
    what: Result<Vec<u8>, i32>,
}

/// What a source that replays still has, and how to tell who reads it.
struct Played {
    records: VecDeque<Record>,
    wake: Box<dyn Fn() + Send>,
}

struct State {
    dir: PathBuf,
    /// The number of the next event.
    number: u32,
    /// Something was recorded in this turn.
    busy: bool,
    uuids: Option<File>,
    played_uuids: VecDeque<Record>,
    played: BTreeMap<u64, Played>,
    next_id: u64,
    used: Option<HashSet<PathBuf>>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to record into, or to replay from, files in `dir`. The error is a sentence.
pub fn start(mode: Mode, dir: &Path) -> Result<(), String> {
    let mut state = state();
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // The daemon may change its directory.
    state.dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    state.begin(mode).map_err(|e| format!("failed to open uuid replay file: {}.", strerror(&e)))?;
    let code = match mode {
        Mode::Off => 0,
        Mode::Record => 1,
        Mode::Replay => 2,
    };
    MODE.store(code, Ordering::Relaxed);
    Ok(())
}

/// The bytes of a UUID: `made`, or in a replay those that were made then.
pub fn uuid(made: &mut [u8; 16]) {
    match mode() {
        Mode::Off => {}
        Mode::Record => {
            let state = &mut *state();
            let number = state.number;
            if let Some(file) = &mut state.uuids {
                write(file, number, Ok(made));
            }
        }
        Mode::Replay => {
            if let Some(Record { what: Ok(bytes), .. }) = state().played_uuids.pop_front()
                && let Some(bytes) = bytes.first_chunk()
            {
                *made = *bytes;
            }
        }
    }
}

/// A turn of the program's loop begins. In a replay, wakes those who have something to read in it.
pub fn next_turn() {
    match mode() {
        Mode::Off => {}
        Mode::Record => {
            let mut state = state();
            if std::mem::take(&mut state.busy) {
                state.number += 1;
            }
        }
        Mode::Replay => state().next_turn(),
    }
}

impl State {
    const fn new() -> State {
        State {
            dir: PathBuf::new(),
            number: 0,
            busy: false,
            uuids: None,
            played_uuids: VecDeque::new(),
            played: BTreeMap::new(),
            next_id: 0,
            used: None,
        }
    }

    fn begin(&mut self, mode: Mode) -> io::Result<()> {
        match mode {
            Mode::Off => {}
            Mode::Record => self.uuids = Some(self.create(UUIDS)?),
            Mode::Replay => self.played_uuids = self.load(UUIDS)?,
        }
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let path = self.dir.join(format!("replay_{name}_{}", self.number));
        File::create(&path).inspect_err(|e| complain(&path, e))
    }

    /// The records of the oldest file of this name that was not used yet.
    fn load(&mut self, name: &str) -> io::Result<VecDeque<Record>> {
        let prefix = format!("replay_{name}_");
        let used = self.used.get_or_insert_default();
        let files = std::fs::read_dir(&self.dir).map(|entries| {
            let entries = entries.filter_map(|e| Some(e.ok()?.path()));
            let numbered = entries.filter_map(|path| {
                let number: u32 = path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((number, path))
            });
            numbered.filter(|(_, path)| !used.contains(path)).min()
        });
        let found = files.ok().flatten();
        let (_, path) = found.unwrap_or_else(|| (0, self.dir.join(format!("{prefix}{}", self.number))));
        let bytes = std::fs::read(&path).inspect_err(|e| complain(&path, e))?;
        used.insert(path);
        Ok(parse(&bytes))
    }

    fn next_turn(&mut self) {
        let mut numbers: Vec<_> =
            self.played.values().map(|p| p.records.iter().map(|r| r.number).peekable()).collect();
        let Some(first) = numbers.iter_mut().filter_map(|n| n.peek().copied()).min() else { return };
        self.number = first;
        let mut end = first;
        while numbers.iter_mut().any(|n| n.next_if_eq(&end).is_some()) {
            end += 1;
        }
        for played in self.played.values() {
            if played.records.front().is_some_and(|r| r.number < end) {
                (played.wake)();
            }
        }
    }
}

fn complain(path: &Path, error: &io::Error) {
    crate::vlog!(OVS_REPLAY, Level::Err, "{}: fopen failed: {}", path.display(), strerror(error));
}

fn write(file: &mut File, number: u32, what: Result<&[u8], i32>) {
    let (length, bytes) = match what {
        Ok(bytes) => (i32::try_from(bytes.len()).unwrap_or(i32::MAX), bytes),
        Err(error) => (-error, &[][..]),
    };
    let mut record = Vec::with_capacity(8 + bytes.len());
    record.extend_from_slice(&number.to_le_bytes());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(bytes);
    if let Err(e) = file.write_all(&record) {
        crate::vlog!(OVS_REPLAY, Level::Err, "failed to write to replay file: {}", strerror(&e));
    }
}

/// The events of a file. What is cut off counts as not there.
fn parse(mut bytes: &[u8]) -> VecDeque<Record> {
    let mut records = VecDeque::new();
    while let Some((head, rest)) = bytes.split_at_checked(8) {
        let word = |at: usize| head[at..].first_chunk().copied().unwrap_or_default();
        let (number, length) = (u32::from_le_bytes(word(0)), i32::from_le_bytes(word(4)));
        bytes = rest;
        if number > i32::MAX as u32 {
            // How much was sent.
            continue;
        }
        let what = match usize::try_from(length) {
            Ok(length) => {
                let Some((data, rest)) = rest.split_at_checked(length) else { break };
                bytes = rest;
                Ok(data.to_vec())
            }
            Err(_) => Err(length.saturating_neg()),
        };
        if what != Err(EAGAIN) {
            records.push_back(Record { number, what });
        }
    }
    records
}

/// The name of a file for a source: letters, with one underscore for all else between them.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// Something that input comes from: a stream or a listener.
#[derive(Debug)]
pub struct Source {
    id: u64,
    /// Where it is recorded; none in a replay.
    file: Option<File>,
}

impl Source {
    /// A source that is about to be opened; none if the program neither records nor replays. `wake` is called from [`next_turn`]
    /// when there is something to read.
    pub fn open(name: &str, wake: impl Fn() + Send + 'static) -> Option<io::Result<Source>> {
        let mode = mode();
        if mode == Mode::Off {
            return None;
        }
        let mut state = state();
        state.next_id += 1;
        let id = state.next_id;
        Some(if mode == Mode::Record {
            state.create(&file_name(name)).map(|file| Source { id, file: Some(file) })
        } else {
            state.load(&file_name(name)).map(|records| {
                state.played.insert(id, Played { records, wake: Box::new(wake) });
                Source { id, file: None }
            })
        })
    }

    /// True in a replay: events come from [`Source::play`].
    pub fn plays(&self) -> bool {
        self.file.is_none()
    }

    /// Records what came of opening, reading or accepting, unless there was nothing to take.
    pub fn record(&mut self, what: Result<&[u8], &io::Error>) {
        let Some(file) = &mut self.file else { return };
        if what.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        let mut state = state();
        write(file, state.number, what.map_err(|e| e.raw_os_error().unwrap_or(EIO)));
        state.number += 1;
        state.busy = true;
    }

    /// What came of opening then. It need not wait for its turn.
    pub fn play_open(&mut self) -> io::Result<()> {
        let mut state = state();
        let record = state.played.get_mut(&self.id).and_then(|p| p.records.pop_front());
        let Some(record) = record else { return Err(io::Error::from_raw_os_error(EIO)) };
        state.number = state.number.max(record.number + 1);
        record.what.map(|_| ()).map_err(io::Error::from_raw_os_error)
    }

    /// The next event, if it is its turn; else `WouldBlock`.
    pub fn play(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = state();
        let number = state.number;
        let Some(played) = state.played.get_mut(&self.id) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        match played.records.front_mut() {
            Some(record) if record.number == number => {
                let taken = match &mut record.what {
                    Err(e) => Err(io::Error::from_raw_os_error(*e)),
                    Ok(bytes) => {
                        let n = bytes.len().min(buf.len());
                        buf[..n].copy_from_slice(&bytes[..n]);
                        bytes.drain(..n);
                        Ok((n, bytes.is_empty()))
                    }
                };
                if !matches!(taken, Ok((_, false))) {
                    played.records.pop_front();
                    state.number += 1;
                }
                taken.map(|(n, _)| n)
            }
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.file.is_none() {
            state().played.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_original() {
        // Opened; a message; what was sent in answer; nothing to read; the end; half a record.
        let file =
            b"\x11\0\0\0\0\0\0\0\x12\0\0\0\x02\0\0\0{}\xed\xff\xff\xff\xd3\x01\0\0\x16\0\0\0\xf5\xff\xff\xff\
                     \x17\0\0\0\0\0\0\0\x18\0\0\0\x09\0\0\0x";
        let records: Vec<(u32, Result<Vec<u8>, i32>)> =
            parse(file).into_iter().map(|r| (r.number, r.what)).collect();
        assert_eq!(records, [(0x11, Ok(vec![])), (0x12, Ok(b"{}".to_vec())), (0x17, Ok(vec![]))]);
    }

    #[test]
    fn names() {
        assert_eq!(file_name("punix:/tmp/r2/ovsdb-server.123.ctl"), "punix_tmp_r_ovsdb_server_ctl");
        assert_eq!(file_name("unix#12"), "unix");
    }

    #[test]
    fn turns() {
        let played = |numbers: &[u32]| Played {
            records: numbers.iter().map(|&number| Record { number, what: Ok(vec![1, 2]) }).collect(),
            wake: Box::new(|| {}),
        };
        let (mut a, mut b) = (Source { id: 1 << 60, file: None }, Source { id: (1 << 60) + 1, file: None });
        let mut buf = [0; 1];
        let mut play = |source: &mut Source| source.play(&mut buf).ok();
        state().played.insert(a.id, played(&[4, 7]));
        state().played.insert(b.id, played(&[5]));
        state().next_turn();
        assert_eq!(play(&mut b), None, "not before the other");
        assert_eq!(play(&mut a), Some(1));
        assert_eq!(play(&mut a), Some(1), "the rest of what did not fit");
        assert_eq!(play(&mut a), None, "in another turn");
        assert_eq!((play(&mut b), play(&mut b)), (Some(1), Some(1)));
        assert_eq!(play(&mut a), None);
        state().next_turn();
        assert_eq!(play(&mut a), Some(1));
    }
}
