//! bpf(2): maps, programs, and what they are attached to. Programs come as instructions, not as ELF files.
//!
//! Everything is owned by a descriptor: a [`Link`] that is dropped, or whose process dies, detaches its program.
//! Instructions are checked by the kernel's verifier; its last words are in the error. All of it needs `CAP_BPF` and
//! `CAP_NET_ADMIN`; without them [`Map::new`] already fails with `EPERM`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::eventfd::check;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;

const F_NO_PREALLOC: u32 = 1;
const F_MMAPABLE: u32 = 1 << 10;
const ANY: u64 = 0;
const NOEXIST: u64 = 1;
const TCX_INGRESS: u32 = 46;
const XDP: u32 = 37;
const XDP_GENERIC: u32 = 2;
const XDP_NATIVE: u32 = 4;
const SO_ATTACH_BPF: libc::c_int = 50;
const SO_DETACH_BPF: libc::c_int = 27;
/// Room for what the verifier says.
const LOG_LEN: usize = 64 << 10;
/// Programs that call no function reserved for GPL ones say their own licence.
const LICENSE: &[u8] = b"Apache-2.0\0";

/// The biggest part of `union bpf_attr` that is used here, as words: each command has its own layout.
type Attr = [u64; 16];

fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<libc::c_int> {
    let len = size_of::<Attr>();
    // SAFETY: attr is writable for len bytes; callers put only pointers into it that live through the call, with lengths
    // that are theirs.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, libc::c_long::from(command), attr.as_mut_ptr(), len) };
    check(libc::c_int::try_from(rc).unwrap_or(-1))
}

/// Two 32-bit fields side by side.
fn pair(low: u32, high: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&low.to_ne_bytes());
    bytes[4..].copy_from_slice(&high.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn len32(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn fd32(fd: RawFd) -> u32 {
    fd.cast_unsigned()
}

fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just opened it for us; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A name as bpf(2) takes it: up to 15 bytes.
fn name_words(name: &str) -> [u64; 2] {
    let mut bytes = [0u8; 16];
    let n = name.len().min(15);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    let (low, high) = bytes.split_at(8);
    [low, high].map(|half| u64::from_ne_bytes(half.try_into().unwrap_or_default()))
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Hash table that takes memory as it fills.
    Hash,
    /// Array that [`Mapped`] can show.
    Array,
    /// Array with an instance for each processor.
    PerCpuArray,
    /// AF_XDP sockets by number.
    Xsk,
}

/// A map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key_len: usize,
    value_len: usize,
}

impl Map {
    /// Makes a map for `entries` entries.
    pub fn new(kind: MapKind, name: &str, key_len: usize, value_len: usize, entries: u32) -> io::Result<Map> {
        let (kind, flags) = match kind {
            MapKind::Hash => (1, F_NO_PREALLOC),
            MapKind::Array => (2, F_MMAPABLE),
            MapKind::PerCpuArray => (6, 0),
            MapKind::Xsk => (17, 0),
        };
        let mut attr = Attr::default();
        attr[0] = pair(kind, len32(key_len)?);
        attr[1] = pair(len32(value_len)?, entries);
        attr[2] = pair(flags, 0);
        // attr[3]: numa_node; then the name, which begins at byte 28.
        let [a, b] = name_words(name);
        let bytes: Vec<u8> = [a, b].iter().flat_map(|w| w.to_ne_bytes()).collect();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        attr[3] = pair(0, word(0));
        attr[4] = pair(word(4), word(8));
        attr[5] = pair(word(12), 0);
        Ok(Map { fd: own(bpf(MAP_CREATE, &mut attr)?), key_len, value_len })
    }

    fn element(&self, key: &[u8], value: *mut u8, flags: u64) -> Attr {
        assert_eq!(key.len(), self.key_len, "a key has its map's length");
        let mut attr = Attr::default();
        attr[0] = pair(fd32(self.fd.as_raw_fd()), 0);
        attr[1] = key.as_ptr().addr() as u64;
        attr[2] = value.expose_provenance() as u64;
        attr[3] = flags;
        key.as_ptr().expose_provenance();
        attr
    }

    /// Adds an entry; `EEXIST` if there is one, `E2BIG` if the map is full.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.write(key, value, NOEXIST)
    }

    /// Writes an entry, whether it is there or not.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.write(key, value, ANY)
    }

    fn write(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        assert_eq!(value.len(), self.value_len, "a value has its map's length");
        // The kernel only reads it.
        let mut attr = self.element(key, value.as_ptr().cast_mut(), flags);
        bpf(MAP_UPDATE_ELEM, &mut attr).map(|_| ())
    }

    /// Removes an entry; `ENOENT` if it is not there.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        let mut attr = self.element(key, std::ptr::null_mut(), 0);
        bpf(MAP_DELETE_ELEM, &mut attr).map(|_| ())
    }

    /// Reads an entry of a map that has one instance of each; `ENOENT` if it is not there.
    pub fn get(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value_len];
        let mut attr = self.element(key, value.as_mut_ptr(), 0);
        bpf(MAP_LOOKUP_ELEM, &mut attr)?;
        Ok(value)
    }
}

impl AsRawFd for Map {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The one value of an array map as shared memory: what programs count is read without a system call.
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is mapped until the value is dropped, and every access to it is atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the value of `map`, an array of one entry.
    pub fn new(map: &Map) -> io::Result<Mapped> {
        let words = map.value_len / size_of::<u64>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(at.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Mapped { base, words })
    }

    /// Its words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `words` words from `base` on are mapped while self lives, page-aligned, and any bits are a valid u64.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; references into it borrow self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

/// Kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Says how much of a packet a socket gets.
    SocketFilter,
    /// Decides about packets that enter or leave a device.
    Tcx,
    /// Decides about packets before the kernel's network stack sees them.
    Xdp,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads instructions. The error has what the verifier said, if it is what refused.
    pub fn load(kind: ProgramKind, name: &str, code: &[u64]) -> io::Result<Program> {
        match Program::try_load(kind, name, code, &mut []) {
            // Without privileges the verifier is not even asked.
            Err(e) if e.raw_os_error() != Some(libc::EPERM) => {
                let mut log = vec![0; LOG_LEN];
                Program::try_load(kind, name, code, &mut log).map_err(|again| {
                    let text = String::from_utf8_lossy(&log);
                    let text = text.trim_end_matches('\0').trim_end();
                    let from = text.len().saturating_sub(400);
                    let tail = text.get(from..).unwrap_or(text);
                    io::Error::new(again.kind(), format!("{again}: {tail}"))
                })
            }
            result => result,
        }
    }

    fn try_load(kind: ProgramKind, name: &str, code: &[u64], log: &mut [u8]) -> io::Result<Program> {
        let (kind, attach) = match kind {
            ProgramKind::SocketFilter => (1, 0),
            ProgramKind::Tcx => (3, TCX_INGRESS),
            ProgramKind::Xdp => (6, XDP),
        };
        let mut attr = Attr::default();
        attr[0] = pair(kind, len32(code.len())?);
        attr[1] = code.as_ptr().expose_provenance() as u64;
        attr[2] = LICENSE.as_ptr().expose_provenance() as u64;
        if !log.is_empty() {
            attr[3] = pair(1, len32(log.len())?);
            attr[4] = log.as_mut_ptr().expose_provenance() as u64;
        }
        [attr[6], attr[7]] = name_words(name);
        attr[8] = pair(0, attach);
        Ok(Program(own(bpf(PROG_LOAD, &mut attr)?)))
    }

    /// Runs it once on a packet, whose first 14 bytes a socket filter does not see; what it returned. For tests.
    pub fn test_run(&self, packet: &[u8]) -> io::Result<u32> {
        let mut attr = Attr::default();
        attr[0] = pair(fd32(self.0.as_raw_fd()), 0);
        attr[1] = pair(len32(packet.len())?, 0);
        attr[2] = packet.as_ptr().expose_provenance() as u64;
        attr[4] = pair(1, 0);
        bpf(PROG_TEST_RUN, &mut attr)?;
        Ok((attr[0] >> 32) as u32)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A program on a device. Dropping it takes the program off.
#[derive(Debug)]
pub struct Link(#[expect(dead_code, reason = "to be dropped")] OwnedFd);

impl Link {
    /// Has packets that the device receives go through `program`, after those that are there already.
    pub fn ingress(program: &Program, ifindex: i32) -> io::Result<Link> {
        let mut attr = Attr::default();
        attr[0] = pair(fd32(program.0.as_raw_fd()), ifindex.cast_unsigned());
        attr[1] = pair(TCX_INGRESS, 0);
        Ok(Link(own(bpf(LINK_CREATE, &mut attr)?)))
    }

    /// Has packets that the device receives go through `program` first: in its driver, or (`generic`) when the kernel has made
    /// its own packet of them. `EBUSY` if the device has another program.
    pub fn xdp(program: &Program, ifindex: i32, generic: bool) -> io::Result<Link> {
        let mut attr = Attr::default();
        attr[0] = pair(fd32(program.0.as_raw_fd()), ifindex.cast_unsigned());
        attr[1] = pair(XDP, if generic { XDP_GENERIC } else { XDP_NATIVE });
        Ok(Link(own(bpf(LINK_CREATE, &mut attr)?)))
    }
}

/// The clock that programs read, nanoseconds.
pub fn ktime_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: now is writable; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let part = |v: i64| u64::try_from(v).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// Sets or removes the program that decides what a socket receives. Replacing one is atomic.
pub fn set_socket_filter(socket: RawFd, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let (option, value) = match program {
        Some(program) => (SO_ATTACH_BPF, program.as_raw_fd()),
        None => (SO_DETACH_BPF, 0),
    };
    let len = size_of::<libc::c_int>() as u32;
    // SAFETY: value is a live int and len its size; the kernel only reads.
    let rc =
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, std::ptr::from_ref(&value).cast(), len) };
    match check(rc) {
        // There was none.
        Err(e) if program.is_none() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_map_keeps_what_it_is_given() {
        let Ok(map) = Map::new(MapKind::Hash, "ib_test", 4, 8, 2) else {
            println!("skipped: needs CAP_BPF");
            return;
        };
        map.insert(&[1; 4], &[7; 8]).unwrap();
        assert_eq!(map.insert(&[1; 4], &[8; 8]).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        map.set(&[1; 4], &[9; 8]).unwrap();
        assert_eq!(map.get(&[1; 4]).unwrap(), [9; 8]);
        map.remove(&[1; 4]).unwrap();
        assert_eq!(map.get(&[1; 4]).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn programs_run_and_bad_ones_are_explained() {
        // r0 = 42; exit
        let code = [0x0000_002a_0000_00b7, 0x95];
        let Ok(program) = Program::load(ProgramKind::SocketFilter, "ib_test", &code) else {
            println!("skipped: needs CAP_BPF");
            return;
        };
        assert_eq!(program.test_run(&[0; 64]).unwrap(), 42);
        let e = Program::load(ProgramKind::SocketFilter, "ib_test", &[0x95]).unwrap_err();
        assert!(e.to_string().contains("R0 !read_ok"), "{e}");
    }
}
