//! A disk that fails and forgets, and the proof that the log copes.
//!
//! [`SimDisk`] keeps two states: what programs see, and what is on the platter. Writes, truncations, renames go to the first at once
//! and to the second when they are synchronised. Operation number N ends the program in its middle; until then operations may fail, writes
//! may be short, and a failed synchronisation loses some of what it should have written for good, as Linux does. [`SimDisk::survivor`]
//! is what the next program finds: after a `kill -9` what this one saw, after a power cut the platter with any subset of what was
//! under way, each write possibly torn.

use super::disk::{Disk, DiskFile, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Numbers that only look random.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % n as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
enum Op {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

fn apply(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, bytes) => {
            let at = usize::try_from(*at).unwrap();
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[at..end].copy_from_slice(bytes);
        }
        Op::Truncate(size) => content.resize(usize::try_from(*size).unwrap(), 0),
    }
}

#[derive(Clone, Default)]
struct File {
    seen: Vec<u8>,
    platter: Vec<u8>,
    /// What was done since the last synchronisation.
    pending: Vec<Op>,
}

#[derive(Clone)]
enum NameOp {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, op: &NameOp) {
    match op {
        NameOp::Set(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameOp::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameOp::Remove(path) => {
            names.remove(path);
        }
    }
}

struct State {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    platter_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameOp>,
    rng: Rng,
    /// Operations until the end; none for ever.
    crash_in: Option<usize>,
    crashed: bool,
    /// One operation in so many fails; 0 for none.
    fault_one_in: usize,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

struct SimFile(SimDisk, usize);

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl SimDisk {
    pub(crate) fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            platter_names: BTreeMap::new(),
            pending_names: Vec::new(),
            rng: Rng::new(seed),
            crash_in: None,
            crashed: false,
            fault_one_in: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn arm(&self, crash_in: usize, fault_one_in: usize) {
        let mut state = self.state();
        state.crash_in = Some(crash_in);
        state.fault_one_in = fault_one_in;
    }

    pub(crate) fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// What the next program finds.
    pub(crate) fn survivor(&self, power_cut: bool, seed: u64) -> SimDisk {
        let next = SimDisk::new(seed);
        let (state, mut rng) = (self.state(), Rng::new(seed));
        let mut new = next.state();
        if power_cut {
            new.names = state.platter_names.clone();
            // Names are journalled: they survive in order.
            let n = rng.below(state.pending_names.len() + 1);
            state.pending_names[..n].iter().for_each(|op| apply_name(&mut new.names, op));
        } else {
            new.names = state.names.clone();
        }
        for file in &state.files {
            let mut content = if power_cut { file.platter.clone() } else { file.seen.clone() };
            if power_cut {
                let all = rng.one_in(4);
                for op in &file.pending {
                    match op {
                        _ if !all && rng.one_in(2) => {}
                        Op::Write(at, bytes) if !all && rng.one_in(3) => {
                            let n = rng.below(bytes.len() + 1);
                            apply(&mut content, &Op::Write(*at, bytes[..n].to_vec()));
                        }
                        op => apply(&mut content, op),
                    }
                }
            }
            new.files.push(File { seen: content.clone(), platter: content, pending: Vec::new() });
        }
        new.platter_names = new.names.clone();
        drop(new);
        next
    }
}

impl State {
    /// Counts an operation. `Ok(true)` if it is the last, which may do a part of its work.
    fn begin(&mut self, error: i32) -> io::Result<bool> {
        if self.crashed {
            return Err(errno(EIO));
        }
        if let Some(n) = &mut self.crash_in {
            if *n == 0 {
                self.crashed = true;
                return Ok(true);
            }
            *n -= 1;
        }
        let fault_one_in = self.fault_one_in;
        if fault_one_in > 0 && self.rng.one_in(fault_one_in) {
            return Err(errno(error));
        }
        Ok(false)
    }

    fn name_op(&mut self, op: NameOp) -> io::Result<()> {
        let last = self.begin(EIO)?;
        if !last || self.rng.one_in(2) {
            apply_name(&mut self.names, &op);
            self.pending_names.push(op);
        }
        if last { Err(errno(EIO)) } else { Ok(()) }
    }

    fn change(&mut self, file: usize, op: Op) {
        apply(&mut self.files[file].seen, &op);
        self.files[file].pending.push(op);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode, _: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = match (state.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateExcl) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, OpenMode::ReadOnly | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                let file = state.files.len();
                state.files.push(File::default());
                state.name_op(NameOp::Set(path.to_path_buf(), file))?;
                file
            }
        };
        Ok(Arc::new(SimFile(self.clone(), file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.state().names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.state().name_op(NameOp::Rename(from.to_path_buf(), to.to_path_buf()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().name_op(NameOp::Remove(path.to_path_buf()))
    }

    fn sync_directory_of(&self, _: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.begin(EIO)? {
            return Err(errno(EIO));
        }
        state.pending_names.clear();
        state.platter_names = state.names.clone();
        Ok(())
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.state().files[self.1].seen.len() as u64)
    }

    fn permissions(&self) -> u32 {
        0o640
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.state();
        let seen = &state.files[self.1].seen;
        let from = usize::try_from(offset).unwrap().min(seen.len());
        let n = buf.len().min(seen.len() - from);
        buf[..n].copy_from_slice(&seen[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.state();
        let last = state.begin(ENOSPC)?;
        let fault_one_in = state.fault_one_in;
        let short = fault_one_in > 0 && state.rng.one_in(fault_one_in);
        let n = match () {
            () if last => state.rng.below(bytes.len() + 1),
            () if short => 1 + state.rng.below(bytes.len()),
            () => bytes.len(),
        };
        state.change(self.1, Op::Write(offset, bytes[..n].to_vec()));
        if last { Err(errno(EIO)) } else { Ok(n) }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.0.state();
        let last = state.begin(EIO)?;
        if !last || state.rng.one_in(2) {
            state.change(self.1, Op::Truncate(size));
        }
        if last { Err(errno(EIO)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        let failed = match state.begin(EIO) {
            Ok(last) => last,
            Err(_) if state.crashed => return Err(errno(EIO)),
            Err(_) => true,
        };
        let pending = std::mem::take(&mut state.files[self.1].pending);
        for op in pending {
            if failed && state.rng.one_in(2) {
                // It will not be tried again, and the next synchronisation reports success.
                continue;
            }
            apply(&mut state.files[self.1].platter, &op);
        }
        if failed { Err(errno(EIO)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Replaced, Replacement, Storage};
    use ib_base::json::Json;

    const PATH: &str = "/x.db";
    const SCHEMA: &str = "{\"schema\":0}";

    fn open(disk: &SimDisk, mode: OpenMode) -> Log {
        Log::open_on(Arc::new(disk.clone()), Path::new(PATH), mode, None).unwrap()
    }

    /// The numbers that a log's records say, in order.
    fn numbers(log: &mut Log) -> Vec<i64> {
        let mut out = Vec::new();
        let first = log.read().unwrap().expect("a schema");
        assert_eq!(first.json.to_string(), SCHEMA);
        while let Ok(Some(record)) = log.read() {
            if let Some(all) = record.json.get("all").and_then(Json::as_array) {
                out = all.iter().map(|n| n.as_integer().unwrap()).collect();
            } else {
                out.push(record.json.get("n").and_then(Json::as_integer).unwrap());
            }
        }
        out
    }

    /// What the log's owner knows.
    #[derive(Default)]
    struct Owner {
        next: i64,
        /// Answered with success.
        accepted: Vec<i64>,
        /// So many of them durably.
        durable: usize,
        /// Not answered when the end came, or answered with an error while the disk would not even take them back: they may be there, behind
        /// so many others.
        uncertain: Vec<(usize, Vec<i64>)>,
    }

    impl Owner {
        fn snapshot(&self) -> Vec<String> {
            vec![SCHEMA.to_string(), format!("{{\"all\":{:?}}}", self.accepted)]
        }

        /// Appends some records and perhaps waits for them.
        fn transact(&mut self, log: &mut Log, rng: &mut Rng) {
            let n = if rng.one_in(3) { 1 + rng.below(4) } else { 1 };
            let durable = rng.one_in(2);
            if durable && log.fault().is_some() && log.replace(&self.snapshot()).is_ok() {
                self.durable = self.accepted.len();
            }
            let (before, start) = (log.end(), self.accepted.len());
            let mut appended = Vec::new();
            for _ in 0..n {
                let number = self.next;
                self.next += 1;
                let padding = if rng.one_in(300) { 70_000 } else { rng.below(50) };
                let record = format!("{{\"n\":{number},\"p\":\"{}\"}}", "x".repeat(padding));
                appended.push(number);
                if log.append(&record).is_ok() {
                    self.accepted.push(number);
                } else {
                    // What was accepted before it stays unless a flush fails.
                    self.uncertain.push((self.accepted.len(), vec![number]));
                    break;
                }
            }
            if !durable {
                return;
            }
            if log.flush().is_ok() {
                self.durable = self.accepted.len();
            } else {
                log.take_back(before);
                self.accepted.truncate(start);
                self.uncertain.push((start, appended));
            }
        }

        /// `faulty`: the disk had failed, and the file was not made anew when the power went. What was not durable is then lost in
        /// part, and what was taken back may be in its place.
        fn check(&self, found: &[i64], power_cut: bool, faulty: bool, seed: u64) {
            let at_least = if power_cut { self.durable } else { self.accepted.len() };
            let common = found.iter().zip(&self.accepted).take_while(|(a, b)| a == b).count();
            let rest = &found[common..];
            let explained = rest.is_empty()
                || self.uncertain.iter().any(|(after, ns)| *after == common && ns.starts_with(rest))
                || power_cut && faulty;
            assert!(
                common >= at_least && explained,
                "seed {seed}, power cut {power_cut}: found {found:?}; accepted {:?}, {} durably; uncertain {:?}",
                self.accepted,
                self.durable,
                self.uncertain
            );
        }
    }

    fn life(seed: u64) {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, OpenMode::CreateExcl);
        log.append(SCHEMA).unwrap();
        log.flush().unwrap();
        let faults = [0, 0, 10, 40][rng.below(4)];
        disk.arm(rng.below(120), faults);
        let mut owner = Owner::default();
        let mut begun: Option<(Replacement, Vec<String>)> = None;
        let mut written: Option<Replaced> = None;
        for _ in 0..60 {
            match rng.below(6) {
                0 if begun.is_none() && written.is_none() => {
                    begun = Some((log.begin_replacement(), owner.snapshot()));
                }
                1 => {
                    if let Some((replacement, records)) = begun.take() {
                        written = replacement.write(&records).ok();
                    }
                }
                2 => {
                    if let Some(replaced) = written.take() {
                        // What it is made from may be void; then nothing is more durable than it was.
                        let current = replaced.from.is_current();
                        if log.adopt(replaced).is_ok() && current {
                            owner.durable = owner.accepted.len();
                        }
                    }
                }
                _ => owner.transact(&mut log, &mut rng),
            }
            if disk.crashed() {
                break;
            }
        }
        let faulty = log.fault().is_some();
        drop(log);
        for power_cut in [false, true, true, true] {
            let disk = disk.survivor(power_cut, rng.below(1 << 30) as u64);
            let mut log = open(&disk, OpenMode::ReadWrite);
            let mut found = numbers(&mut log);
            owner.check(&found, power_cut, faulty, seed);
            // Whatever was there, it goes on behind it.
            log.append("{\"n\":-1}").unwrap();
            log.flush().unwrap();
            found.push(-1);
            let disk = disk.survivor(true, seed);
            assert_eq!(numbers(&mut open(&disk, OpenMode::ReadOnly)), found, "seed {seed}");
        }
    }

    #[test]
    fn what_was_answered_is_there_after_any_crash() {
        for seed in 1..=2_000 {
            life(seed);
        }
    }
}
