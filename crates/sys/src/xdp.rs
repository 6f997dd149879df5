//! AF_XDP sockets: packets of one receive queue of a device, through memory shared with the kernel.
//!
//! [`open`] makes a socket with its memory (umem) and four rings, and gives it in two halves: [`XskRx`] with the receive and
//! fill rings, for the one thread that polls the queue; [`XskTx`] with the transmit and completion rings, for whoever sends there, one
//! at a time. The chunks of the memory are divided between them for good, so that the halves share nothing that changes.
//! Packets are copied out of and into chunks: the memory is small, and packets live longer than they may stay there.
//!
//! [`redirect`] makes the XDP program that hands a device's packets to the sockets by queue, without libbpf. The kernel is trusted to
//! keep to its side of the rings, but what it says about chunks is checked all the same.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bpf::{Map, MapKind, Program, ProgramKind};
use crate::eventfd::check;

/// Entries of each ring, and chunks of each half.
pub const RING: u32 = 2048;
/// What the kernel keeps free in front of a received packet.
const HEADROOM: usize = 256;
/// How often a send asks the kernel to go on with what it left.
const KICKS: usize = 64;

const AF_XDP: libc::c_int = 44;
const SOL_XDP: libc::c_int = 283;
const XDP_MMAP_OFFSETS: libc::c_int = 1;
const XDP_RX_RING: libc::c_int = 2;
const XDP_TX_RING: libc::c_int = 3;
const XDP_UMEM_REG: libc::c_int = 4;
const XDP_UMEM_FILL_RING: libc::c_int = 5;
const XDP_UMEM_COMPLETION_RING: libc::c_int = 6;
const XDP_STATISTICS: libc::c_int = 7;
const PGOFF_RX: i64 = 0;
const PGOFF_TX: i64 = 0x8000_0000;
const PGOFF_FILL: i64 = 0x1_0000_0000;
const PGOFF_COMPLETION: i64 = 0x1_8000_0000;
const BIND_COPY: u16 = 2;
const BIND_ZEROCOPY: u16 = 4;
const BIND_NEED_WAKEUP: u16 = 8;
const RING_NEED_WAKEUP: u32 = 1;

/// How a socket wants its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The device's driver writes into our memory; else the kernel copies.
    pub zero_copy: bool,
    /// The kernel says when it wants to be woken.
    pub need_wakeup: bool,
    /// Bytes of a chunk: 2048 or 4096. A packet may have [`room`] bytes.
    pub chunk: u32,
}

/// Longest packet that is received into a chunk of so many bytes.
pub fn room(chunk: u32) -> usize {
    chunk as usize - HEADROOM
}

/// Memory that is mapped while the value lives.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory stays mapped until the value is dropped, whichever thread has it; who accesses it has rules of his own.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: Option<RawFd>, offset: i64, len: usize) -> io::Result<Mapping> {
        let flags = match fd {
            Some(_) => libc::MAP_SHARED | libc::MAP_POPULATE,
            None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd.unwrap_or(-1), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(at.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and who uses it keeps self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What both halves keep alive.
#[derive(Debug)]
struct Core {
    fd: OwnedFd,
    umem: Mapping,
    chunk: u32,
}

impl Core {
    /// Where a chunk's bytes are, if they are all within the memory.
    fn at(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        let from = usize::try_from(address).ok()?;
        let end = from.checked_add(len)?;
        if end > self.umem.len {
            return None;
        }
        // SAFETY: `from` is within the mapping, as just checked.
        Some(unsafe { self.umem.base.add(from) })
    }

    /// Has the kernel look at the rings; whether it wants to be asked again.
    fn kick(&self) -> bool {
        // SAFETY: no bytes are sent; the call only makes the kernel look at the ring.
        let rc =
            unsafe { libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
        rc < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
    }
}

/// `struct xdp_ring_offset`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RingOffset {
    producer: u64,
    consumer: u64,
    desc: u64,
    flags: u64,
}

/// `struct xdp_desc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Desc {
    address: u64,
    len: u32,
    options: u32,
}

/// One ring of entries `T`, of which we are either the producer or the consumer.
#[derive(Debug)]
struct Ring<T> {
    map: Mapping,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    /// Our own index: the next entry to produce or to consume.
    next: u32,
    kind: std::marker::PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    fn new(fd: RawFd, page_offset: i64, offset: &RingOffset) -> io::Result<Ring<T>> {
        let place = |v: u64| usize::try_from(v).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
        let entries = place(offset.desc)?;
        let map = Mapping::new(Some(fd), page_offset, entries + RING as usize * size_of::<T>())?;
        let words = (place(offset.producer)?, place(offset.consumer)?, place(offset.flags)?);
        if [words.0, words.1, words.2].iter().any(|w| w + 4 > map.len || w % 4 != 0) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (producer, consumer, flags) = words;
        Ok(Ring { map, producer, consumer, flags, entries, next: 0, kind: std::marker::PhantomData })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `new` has checked that the aligned word lies in the mapping, which lives as long as self; any bits are a valid u32,
        // and the kernel, too, accesses it atomically.
        unsafe { self.map.base.add(at).cast().as_ref() }
    }

    fn slot(&self, index: u32) -> *mut T {
        let at = self.entries + (index & (RING - 1)) as usize * size_of::<T>();
        // SAFETY: the mapping has RING entries from `entries` on, and the index is masked.
        unsafe { self.map.base.add(at).cast().as_ptr() }
    }

    /// As producer: entries that may be written now.
    fn free(&self) -> u32 {
        RING - self.next.wrapping_sub(self.word(self.consumer).load(Ordering::Acquire)).min(RING)
    }
    /// Writes the next entry; there must be a free one. The kernel sees it after `publish`.
    fn produce(&mut self, entry: T) {
        // SAFETY: the slot is in the mapping and aligned as the kernel lays it out; until published it is ours.
        unsafe { self.slot(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }
    fn publish(&self) {
        self.word(self.producer).store(self.next, Ordering::Release);
    }

    /// As consumer: entries that wait.
    fn ready(&self) -> u32 {
        self.word(self.producer).load(Ordering::Acquire).wrapping_sub(self.next).min(RING)
    }
    /// Reads the next entry; there must be one.
    fn consume(&mut self) -> T {
        // SAFETY: as for `produce`; T is made of integers, for which any bits are valid; the kernel has published the entry.
        let entry = unsafe { self.slot(self.next).read() };
        self.next = self.next.wrapping_add(1);
        entry
    }
    fn release(&self) {
        self.word(self.consumer).store(self.next, Ordering::Release);
    }

    fn wants_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & RING_NEED_WAKEUP != 0
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct XskRx {
    core: Arc<Core>,
    rx: Ring<Desc>,
    fill: Ring<u64>,
}

impl XskRx {
    /// Shows up to `max` packets that wait to `visit`, in order; how many. Without waiting.
    pub fn recv(&mut self, max: usize, mut visit: impl FnMut(&[u8])) -> usize {
        let n = self.rx.ready().min(u32::try_from(max).unwrap_or(RING)).min(self.fill.free());
        if n == 0 {
            if self.fill.wants_wakeup() {
                // The driver has run out of chunks and does not look for new ones by itself.
                let fd = self.core.fd.as_raw_fd();
                // SAFETY: no buffer is given, so none is written.
                unsafe { libc::recv(fd, ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
            }
            return 0;
        }
        let chunk = u64::from(self.core.chunk);
        for _ in 0..n {
            let desc = self.rx.consume();
            if let Some(at) = self.core.at(desc.address, desc.len as usize) {
                // SAFETY: the bytes are in the mapping, initialised (anonymous memory), and the kernel has given the chunk to us
                // until it is put into the fill ring below; nobody else knows of it.
                visit(unsafe { std::slice::from_raw_parts(at.as_ptr(), desc.len as usize) });
            }
            self.fill.produce(desc.address - desc.address % chunk);
        }
        self.rx.release();
        self.fill.publish();
        usize::try_from(n).unwrap_or(0)
    }

    /// What the kernel counted: dropped, invalid descriptors received, sent, receive ring full, fill ring empty, send ring empty.
    pub fn counters(&self) -> io::Result<[u64; 6]> {
        counters(&self.core)
    }
}

impl AsRawFd for XskRx {
    fn as_raw_fd(&self) -> RawFd {
        self.core.fd.as_raw_fd()
    }
}

fn counters(core: &Core) -> io::Result<[u64; 6]> {
    let mut all = [0u64; 6];
    let mut len = size_of_val(&all) as u32;
    let fd = core.fd.as_raw_fd();
    // SAFETY: all is writable for len bytes.
    check(unsafe { libc::getsockopt(fd, SOL_XDP, XDP_STATISTICS, all.as_mut_ptr().cast(), &mut len) })?;
    Ok(all)
}

/// The sending half.
#[derive(Debug)]
pub struct XskTx {
    core: Arc<Core>,
    tx: Ring<Desc>,
    completion: Ring<u64>,
    /// Chunks that are not under way.
    free: Vec<u64>,
    need_wakeup: bool,
}

impl XskTx {
    /// Sends packets without waiting; how many were taken, from the first on. One that is longer than a chunk ends it.
    pub fn send<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) -> usize {
        self.reap();
        let mut n = 0;
        for data in packets {
            let room = self.tx.free() > 0 && data.len() <= self.core.chunk as usize;
            let Some(address) = self.free.pop_if(|_| room) else { break };
            let Some(to) = self.core.at(address, data.len()) else { break };
            // SAFETY: the chunk's bytes are in the mapping and the chunk is free, so that nobody else accesses it; a caller's slice
            // cannot lie in memory that only we hand out.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len()) };
            self.tx.produce(Desc { address, len: u32::try_from(data.len()).unwrap_or(0), options: 0 });
            n += 1;
        }
        if n > 0 {
            self.tx.publish();
            if !self.need_wakeup || self.tx.wants_wakeup() {
                // Copying, the kernel takes some dozens of packets a call.
                let mut left = KICKS;
                while self.core.kick() && left > 0 {
                    left -= 1;
                }
            }
        }
        n
    }

    /// Takes back chunks whose packets have left.
    fn reap(&mut self) {
        let n = self.completion.ready();
        for _ in 0..n {
            let address = self.completion.consume();
            self.free.push(address - address % u64::from(self.core.chunk));
        }
        if n > 0 {
            self.completion.release();
        }
    }

    /// Longest packet that it takes.
    pub fn longest(&self) -> usize {
        self.core.chunk as usize
    }

    /// See [`XskRx::counters`].
    pub fn counters(&self) -> io::Result<[u64; 6]> {
        counters(&self.core)
    }
}

fn set<T>(fd: RawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as u32;
    // SAFETY: value is a live T and len its size; the kernel only reads.
    check(unsafe { libc::setsockopt(fd, SOL_XDP, option, ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// A socket on queue `queue` of a device.
pub fn open(ifindex: i32, queue: u32, how: Bind) -> io::Result<(XskRx, XskTx)> {
    // struct xdp_umem_reg and sockaddr_xdp.
    #[repr(C)]
    struct Umem {
        address: u64,
        len: u64,
        chunk: u32,
        headroom: u32,
        flags: u32,
        tx_metadata_len: u32,
    }
    #[repr(C)]
    struct Address {
        family: u16,
        flags: u16,
        ifindex: u32,
        queue: u32,
        shared_fd: u32,
    }
    // SAFETY: no pointers; the descriptor that returns is ours alone.
    let fd = check(unsafe { libc::socket(AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: fd was just opened and nobody else has it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let half = u64::from(RING) * u64::from(how.chunk);
    let umem = Mapping::new(None, 0, 2 * RING as usize * how.chunk as usize)?;
    let registration = Umem {
        address: umem.base.as_ptr().expose_provenance() as u64,
        len: 2 * half,
        chunk: how.chunk,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, XDP_UMEM_REG, &registration)?;
    for option in [XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING] {
        set(fd, option, &RING)?;
    }
    let mut offsets = [RingOffset::default(); 4];
    let mut len = size_of_val(&offsets) as u32;
    // SAFETY: offsets is writable for len bytes.
    check(unsafe { libc::getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, offsets.as_mut_ptr().cast(), &mut len) })?;
    if len as usize != size_of_val(&offsets) {
        // Kernels before 5.4.
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let rx = Ring::new(fd, PGOFF_RX, &offsets[0])?;
    let tx = Ring::new(fd, PGOFF_TX, &offsets[1])?;
    let mut fill = Ring::new(fd, PGOFF_FILL, &offsets[2])?;
    let completion = Ring::new(fd, PGOFF_COMPLETION, &offsets[3])?;
    (0..half).step_by(how.chunk as usize).for_each(|chunk| fill.produce(chunk));
    fill.publish();
    let mode = if how.zero_copy { BIND_ZEROCOPY } else { BIND_COPY };
    let address = Address {
        family: AF_XDP as u16,
        flags: mode | if how.need_wakeup { BIND_NEED_WAKEUP } else { 0 },
        ifindex: ifindex.cast_unsigned(),
        queue,
        shared_fd: 0,
    };
    // SAFETY: address lives through the call, with its size.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<Address>() as u32) })?;
    let core = Arc::new(Core { fd: owned, umem, chunk: how.chunk });
    let free = (half..2 * half).step_by(how.chunk as usize).collect();
    let tx = XskTx { core: Arc::clone(&core), tx, completion, free, need_wakeup: how.need_wakeup };
    Ok((XskRx { core, rx, fill }, tx))
}

/// Makes the program that hands packets to sockets by queue, and its table of sockets, for so many queues. A packet whose queue has no
/// socket goes on to the host.
pub fn redirect(queues: u32) -> io::Result<(Program, Map)> {
    const PASS: u64 = 2;
    const REDIRECT_MAP: u64 = 51;
    let map = Map::new(MapKind::Xsk, "ib_xsks", 4, 4, queues)?;
    let fd = u64::from(map.as_raw_fd().cast_unsigned());
    let code = [
        // r2 = ctx->rx_queue_index
        0x0010_1261,
        // r1 = the map
        fd << 32 | 0x1118,
        0,
        // r3 = what to do if there is no socket
        PASS << 32 | 0x03b7,
        REDIRECT_MAP << 32 | 0x85,
        0x95,
    ];
    Ok((Program::load(ProgramKind::Xdp, "ib_xdp", &code)?, map))
}

/// Has packets of `queue` go to this socket.
pub fn steer(map: &Map, queue: u32, socket: &XskRx) -> io::Result<()> {
    map.set(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
}
