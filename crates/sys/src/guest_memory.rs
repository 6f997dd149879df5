//! Memory that another program writes at the same time: a virtual machine's, mapped from a descriptor.
//!
//! A [`Mapping`] hands out no references. Bytes go in and out by copies made in the C library, and counters by
//! atomics, so nothing that the other side does meanwhile changes what the compiler may assume. Every access is held
//! against the mapping's length and refused outside of it.
//!
//! A file that is cut short under its mapping raises SIGBUS on access. Memory that is sealed cannot be cut, other
//! memory can, so mappings are entered in a table that a handler looks through: it puts empty memory in the place of
//! what is gone, notes that ([`Mapping::is_lost`]), and the access goes on. A fault anywhere else goes to whoever handled
//! SIGBUS before.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use crate::eventfd::check;

/// Most mappings at a time.
const MAX_MAPPINGS: usize = 16_384;
/// A file system in user space may make us wait for a page for ever.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// One mapping, for the handler of SIGBUS.
struct Span {
    taken: AtomicBool,
    /// First address; 0 while there is none.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static SPANS: [Span; MAX_MAPPINGS] = [const {
    Span {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; MAX_MAPPINGS];
/// Spans from here on were never taken.
static SPANS_USED: AtomicUsize = AtomicUsize::new(0);
static OLD_ACTION: OnceLock<libc::sigaction> = OnceLock::new();

/// Puts empty memory where a mapping lost its file.
extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler that was installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for span in &SPANS[..SPANS_USED.load(Ordering::Acquire)] {
        let start = span.start.load(Ordering::Acquire);
        let end = span.end.load(Ordering::Acquire);
        if start == 0 || address < start || address >= end || span.start.load(Ordering::Acquire) != start {
            continue;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is a mapping of ours that the interrupted access is using, so it exists until we return; nobody holds
        // references into it. mmap is one system call, which a handler may make.
        let new = unsafe { libc::mmap(start as *mut libc::c_void, end - start, protection, flags, -1, 0) };
        if new != libc::MAP_FAILED {
            span.lost.store(true, Ordering::Release);
            return;
        }
    }
    // Not ours: the access is repeated under the old handler.
    // SAFETY: the action is one that the kernel gave us, or the default one.
    unsafe {
        match OLD_ACTION.get() {
            Some(old) => libc::sigaction(libc::SIGBUS, old, ptr::null_mut()),
            None => libc::signal(libc::SIGBUS, libc::SIG_DFL) as libc::c_int,
        };
    }
}

fn install_handler() {
    OLD_ACTION.get_or_init(|| {
        // SAFETY: all-zero bytes are a valid sigaction; both structures live through the call; the handler has the
        // signature that SA_SIGINFO asks for.
        unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = on_sigbus as *const () as libc::sighandler_t;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &new, &mut old);
            old
        }
    });
}

/// Enters a range into the table.
fn enter(start: usize, len: usize) -> io::Result<usize> {
    install_handler();
    let free = SPANS.iter().position(|s| !s.taken.swap(true, Ordering::AcqRel));
    let at = free.ok_or(io::ErrorKind::OutOfMemory)?;
    let span = &SPANS[at];
    span.lost.store(false, Ordering::Relaxed);
    span.end.store(start + len, Ordering::Release);
    span.start.store(start, Ordering::Release);
    SPANS_USED.fetch_max(at + 1, Ordering::AcqRel);
    Ok(at)
}

/// An anonymous file of `len` bytes that cannot be cut, to be shared with another program.
pub fn memory_file(name: &std::ffi::CStr, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the descriptor that returns is ours alone.
    let fd =
        check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) })?;
    // SAFETY: fd was just opened and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let file = File::from(fd);
    file.set_len(len as u64)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file.into())
}

/// Shared memory; see the module.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    span: usize,
}

// SAFETY: the address is plain memory; every access is an atomic, or a copy made outside of Rust.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps bytes `offset..offset + len` of a file, for reading and writing. `InvalidInput` if the file is shorter, or
    /// is none whose pages are there when they are asked for.
    pub fn of_file(fd: impl AsFd, offset: u64, len: usize) -> io::Result<SharedRange> {
        let fd = fd.as_fd();
        let file = File::from(fd.try_clone_to_owned()?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: all-zero bytes are a valid statfs, which lives through the call.
        let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut fs) })?;
        #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
        let magic = fs.f_type as i64;
        let end = offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if magic == FUSE_SUPER_MAGIC || len == 0 || end > meta.size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Huge pages want whole ones.
        let page = meta.blksize().max(4096);
        let page = if page.is_power_of_two() { page } else { 4096 };
        let from = offset & !(page - 1);
        let skip = usize::try_from(offset - from).map_err(|_| io::ErrorKind::InvalidInput)?;
        let whole = usize::try_from((end - from).next_multiple_of(page));
        let whole = whole.map_err(|_| io::ErrorKind::InvalidInput)?;
        let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = Mapping::new(whole, libc::MAP_SHARED, file.as_raw_fd(), from)?;
        Ok(SharedRange { map: map.into(), skip, len })
    }

    /// Memory of nobody else's, for tests.
    pub fn anonymous(len: usize) -> io::Result<SharedRange> {
        let map = Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        Ok(SharedRange { map: map.into(), skip: 0, len })
    }

    fn new(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel likes; it touches no memory that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let span = enter(base as usize, len);
        let Some(start) = NonNull::new(base.cast::<u8>()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        match span {
            Ok(span) => Ok(Mapping { base: start, len, span }),
            Err(e) => {
                // SAFETY: the mapping that was just made; nobody has its address.
                unsafe { libc::munmap(base, len) };
                Err(e)
            }
        }
    }

    /// Whether the file was cut short under the mapping: its memory is then empty memory of our own.
    pub fn is_lost(&self) -> bool {
        SPANS[self.span].lost.load(Ordering::Acquire)
    }

    /// The address of `len` bytes at `at`, if they are all inside.
    #[inline]
    fn place(&self, at: usize, len: usize) -> Option<*mut u8> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `at` is within the mapping, or one past its end.
        Some(unsafe { self.base.as_ptr().add(at) })
    }

    /// As [`Self::place`], and aligned for a number of that length.
    #[inline]
    fn aligned(&self, at: usize, len: usize) -> Option<*mut u8> {
        self.place(at, len).filter(|p| (*p as usize).is_multiple_of(len))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let span = &SPANS[self.span];
        span.start.store(0, Ordering::Release);
        // SAFETY: base and length are those of our mapping, and whoever could use it is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        span.taken.store(false, Ordering::Release);
    }
}

/// A part of a mapping. Cheap to clone; offsets count from the part's begin. Reads and writes that would leave the part are
/// refused with `None`.
#[derive(Clone, Debug)]
pub struct SharedRange {
    map: std::sync::Arc<Mapping>,
    skip: usize,
    len: usize,
}

impl SharedRange {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// See [`Mapping::is_lost`].
    pub fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// A part of this part.
    pub fn part(&self, at: usize, len: usize) -> Option<SharedRange> {
        self.inside(at, len)?;
        Some(SharedRange { map: self.map.clone(), skip: self.skip + at, len })
    }

    #[inline]
    fn inside(&self, at: usize, len: usize) -> Option<usize> {
        (at.checked_add(len)? <= self.len).then_some(self.skip + at)
    }

    /// Copies bytes out.
    #[inline]
    pub fn read(&self, at: usize, out: &mut [u8]) -> Option<()> {
        let from = self.map.place(self.inside(at, out.len())?, out.len())?;
        // SAFETY: both ranges have the length and do not overlap: `out` is Rust memory. The copy is made by the C library, of
        // which the compiler knows nothing, so bytes that change meanwhile are merely one or the other.
        unsafe { libc::memcpy(out.as_mut_ptr().cast(), from.cast(), out.len()) };
        Some(())
    }

    /// Copies bytes in.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) -> Option<()> {
        let to = self.map.place(self.inside(at, bytes.len())?, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { libc::memcpy(to.cast(), bytes.as_ptr().cast(), bytes.len()) };
        Some(())
    }

    /// An aligned number of two bytes, in the machine's order.
    #[inline]
    pub fn load_u16(&self, at: usize, order: Ordering) -> Option<u16> {
        let p = self.map.aligned(self.inside(at, 2)?, 2)?;
        // SAFETY: valid and aligned for the mapping's life; all of our accesses to shared numbers are atomics.
        Some(unsafe { AtomicU16::from_ptr(p.cast()) }.load(order))
    }
    /// Stores an aligned number of two bytes.
    #[inline]
    pub fn store_u16(&self, at: usize, value: u16, order: Ordering) -> Option<()> {
        let p = self.map.aligned(self.inside(at, 2)?, 2)?;
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU16::from_ptr(p.cast()) }.store(value, order);
        Some(())
    }
    /// An aligned number of eight bytes.
    #[inline]
    pub fn load_u64(&self, at: usize) -> Option<u64> {
        let p = self.map.aligned(self.inside(at, 8)?, 8)?;
        // SAFETY: as in `load_u16`.
        Some(unsafe { AtomicU64::from_ptr(p.cast()) }.load(Ordering::Relaxed))
    }
    /// Stores an aligned number of eight bytes.
    #[inline]
    pub fn store_u64(&self, at: usize, value: u64) -> Option<()> {
        let p = self.map.aligned(self.inside(at, 8)?, 8)?;
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU64::from_ptr(p.cast()) }.store(value, Ordering::Relaxed);
        Some(())
    }
    /// Sets bits of a byte that others set bits of, too.
    #[inline]
    pub fn or_u8(&self, at: usize, bits: u8) -> Option<()> {
        let p = self.map.place(self.inside(at, 1)?, 1)?;
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU8::from_ptr(p) }.fetch_or(bits, Ordering::Release);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let fd = memory_file(c"test", 8192).unwrap();
        let a = Mapping::of_file(&fd, 0, 8192).unwrap();
        let b = Mapping::of_file(&fd, 4096 + 16, 100).unwrap();
        a.write(4096 + 16, b"hello").unwrap();
        let mut out = [0; 5];
        b.read(0, &mut out).unwrap();
        assert_eq!(&out, b"hello");
        b.store_u16(8, 0x1234, Ordering::Release).unwrap();
        assert_eq!(a.load_u16(4096 + 24, Ordering::Acquire), Some(0x1234));
        a.or_u8(0, 3).unwrap();
        a.or_u8(0, 4).unwrap();
        a.read(0, &mut out[..1]).unwrap();
        assert_eq!(out[0], 7);
    }

    #[test]
    fn nothing_leaves_the_range() {
        let m = Mapping::anonymous(4096).unwrap().part(16, 32).unwrap();
        assert_eq!(m.write(30, &[0; 3]), None);
        assert_eq!(m.write(usize::MAX, &[0; 3]), None);
        assert_eq!(m.load_u16(31, Ordering::Relaxed), None);
        assert_eq!(m.load_u16(1, Ordering::Relaxed), None, "odd");
        assert_eq!(m.load_u16(30, Ordering::Relaxed), Some(0));
        assert!(m.part(1, 32).is_none());
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let fd = memory_file(c"test", 4096).unwrap();
        assert!(Mapping::of_file(&fd, 0, 4097).is_err());
        assert!(Mapping::of_file(&fd, u64::MAX, 2).is_err());
        assert!(Mapping::of_file(&fd, 0, 0).is_err());
        assert!(Mapping::of_file(File::open("/dev/zero").unwrap(), 0, 4096).is_err());
    }

    #[test]
    fn a_file_that_is_cut_short_becomes_empty_memory() {
        // SAFETY: the name is a C string; the descriptor is ours.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"t".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(8192).unwrap();
        let m = Mapping::of_file(&file, 0, 8192).unwrap();
        m.write(5000, b"x").unwrap();
        assert!(!m.is_lost());
        file.set_len(0).unwrap();
        let mut out = [9; 1];
        m.read(5000, &mut out).unwrap();
        assert_eq!(out, [0]);
        assert!(m.is_lost());
        m.write(0, &[1; 8192]).unwrap();
    }
}
