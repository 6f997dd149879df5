//! A split virtqueue, from the device's side (virtio 1.2, 2.7).
//!
//! The driver, perhaps a hostile one, writes descriptors and the available ring while we read. So each of its numbers is
//! read once into a value of ours and then checked: an index against the ring's size, a chain's length against a
//! bound, an address against the regions. What is wrong is a [`RingFault`]; the ring is then broken and looked at no
//! more until it is set up anew. Work for one chain is bounded by [`CHAIN_MAX`], for one packet by the ring's size.
//!
//! Order: the available index is loaded with acquire before the entries that it covers; used entries are written before the used
//! index is stored with release; a full fence stands between that and a look at what the driver wants to be told of.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ib_sys::guest_memory::SharedRange;

use crate::inflight::Inflight;
use crate::memory::{DirtyLog, GuestMemory, Piece};
use crate::wire::VringAddr;

/// Most descriptors in a chain, indirect ones counted.
pub const CHAIN_MAX: usize = 1024;
/// Largest ring (virtio 1.2, 2.7).
pub const SIZE_MAX: u16 = 32768;

const DESC_LEN: usize = 16;
const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;

/// What a driver did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// More buffers on offer than the ring has.
    AvailIndex,
    /// A descriptor that the ring does not have.
    DescIndex,
    /// A chain without an end, or one that is too long.
    ChainLength,
    /// An address that is no guest memory.
    Address,
    /// An indirect table inside of another, or of a wrong size, or not negotiated.
    Indirect,
    /// A readable descriptor behind a writable one.
    Order,
}

/// A chain that was taken.
#[derive(Debug, Default)]
pub struct Chain {
    /// Its first descriptor: its name in the used ring.
    pub head: u16,
    /// What the device reads.
    pub readable: Vec<Piece>,
    /// Bytes of that.
    pub readable_len: usize,
    /// What the device writes.
    pub writable: Vec<Piece>,
    /// Bytes of that.
    pub writable_len: usize,
}

impl Chain {
    fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        (self.readable_len, self.writable_len) = (0, 0);
    }
}

/// How a ring is set up.
#[derive(Debug)]
pub struct RingConfig {
    /// The guest's memory.
    pub memory: Arc<GuestMemory>,
    /// Descriptors; a power of two.
    pub size: u16,
    /// The front-end's addresses of the three parts.
    pub desc: u64,
    /// See `desc`.
    pub avail: u64,
    /// See `desc`.
    pub used: u64,
    /// The next available entry.
    pub base: u16,
    /// `F_EVENT_IDX` is in force.
    pub event_idx: bool,
    /// `F_INDIRECT_DESC` is in force.
    pub indirect: bool,
    /// Where to mark what is written.
    pub log: Option<Arc<DirtyLog>>,
    /// The used ring's guest address for that log.
    pub used_log: Option<u64>,
    /// The record of buffers under way.
    pub inflight: Option<Inflight>,
}

/// A ring in use.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<GuestMemory>,
    desc: SharedRange,
    avail: SharedRange,
    used: SharedRange,
    size: u16,
    next_avail: u16,
    next_used: u16,
    /// Used index at the last signal.
    signalled: Option<u16>,
    event_idx: bool,
    indirect: bool,
    log: Option<Arc<DirtyLog>>,
    used_log: Option<u64>,
    inflight: Option<Inflight>,
    /// Heads to do again, the next one last.
    again: Vec<u16>,
    /// Heads in the used ring that its index does not show yet.
    pending: Vec<u16>,
    fault: Option<RingFault>,
    address: VringAddr,
}

impl Ring {
    /// Sets one up. `None` if the addresses are not in guest memory, or the size is none.
    pub fn new(config: RingConfig) -> Option<Ring> {
        let n = usize::from(config.size);
        if !config.size.is_power_of_two() || config.size > SIZE_MAX {
            return None;
        }
        let part = |address: u64, len: usize, align: u64| {
            let (range, _) = config.memory.of_user(address, len)?;
            address.is_multiple_of(align).then_some(range)
        };
        let desc = part(config.desc, n * DESC_LEN, 16)?;
        let avail = part(config.avail, 6 + 2 * n, 2)?;
        let used = part(config.used, 6 + 8 * n, 4)?;
        let next_used = u16::from_le(used.load_u16(2, Ordering::Acquire)?);
        let mut inflight = config.inflight;
        let mut again = inflight.as_mut().map(|i| i.recover(next_used)).unwrap_or_default();
        let mut next_avail = config.base;
        if inflight.is_some() && !again.is_empty() {
            next_avail = next_used.wrapping_add(u16::try_from(again.len()).ok()?);
            again.reverse();
        }
        Some(Ring {
            memory: config.memory,
            desc,
            avail,
            used,
            size: config.size,
            next_avail,
            next_used,
            signalled: None,
            event_idx: config.event_idx,
            indirect: config.indirect,
            log: config.log,
            used_log: config.used_log,
            inflight,
            again,
            pending: Vec::new(),
            fault: None,
            address: VringAddr::default(),
        })
    }

    /// Notes the addresses that it was set up with, and that it is broken if its predecessor was.
    pub(crate) fn set_address(&mut self, address: VringAddr, fault: Option<RingFault>) {
        self.address = address;
        self.fault = fault;
    }

    /// Whether it is what these would set up.
    pub(crate) fn is_at(
        &self,
        memory: &Arc<GuestMemory>,
        size: u16,
        address: VringAddr,
        log: Option<&Arc<DirtyLog>>,
        (event_idx, indirect): (bool, bool),
    ) -> bool {
        if (self.event_idx, self.indirect) != (event_idx, indirect) {
            return false;
        }
        let same_log = self.log.as_ref().map(Arc::as_ptr) == log.map(Arc::as_ptr);
        Arc::ptr_eq(&self.memory, memory) && self.size == size && self.address == address && same_log
    }

    /// Guest memory, for [`Chain`]s' pieces.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
    /// The next available entry: what `GET_VRING_BASE` asks for.
    pub fn base(&self) -> u16 {
        self.next_avail
    }
    /// What the driver did wrong, if it did.
    pub fn fault(&self) -> Option<RingFault> {
        self.fault
    }
    /// Descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Buffers on offer. A broken ring has none.
    pub fn available(&mut self) -> u16 {
        if self.fault.is_some() {
            return 0;
        }
        let index = u16::from_le(self.avail.load_u16(2, Ordering::Acquire).unwrap_or(0));
        let n = index.wrapping_sub(self.next_avail);
        if n > self.size {
            self.fault = Some(RingFault::AvailIndex);
            return 0;
        }
        n + self.again.len().min(usize::from(u16::MAX - n)) as u16
    }

    /// Takes the next buffer into `chain`; false if there is none, or the ring is broken (now).
    pub fn take(&mut self, chain: &mut Chain) -> bool {
        let taken = self.peek(0, chain);
        if taken {
            self.advance(1);
            if let Some(inflight) = &mut self.inflight {
                inflight.taken(chain.head);
            }
        }
        taken
    }

    /// Looks at the buffer `ahead` of the next one without taking it.
    pub fn peek(&mut self, ahead: u16, chain: &mut Chain) -> bool {
        if self.available() <= ahead {
            return false;
        }
        let found = self.head(ahead).and_then(|head| self.walk(head, chain));
        match found {
            Ok(()) => true,
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    /// Takes `n` buffers that were looked at.
    pub fn advance(&mut self, n: u16) {
        let again = usize::from(n).min(self.again.len());
        self.again.truncate(self.again.len() - again);
        self.next_avail = self.next_avail.wrapping_add(n - again as u16);
    }

    fn head(&self, ahead: u16) -> Result<u16, RingFault> {
        if let Some(at) = self.again.len().checked_sub(usize::from(ahead) + 1) {
            return Ok(self.again[at]);
        }
        let ahead = ahead - self.again.len() as u16;
        let slot = usize::from(self.next_avail.wrapping_add(ahead) & (self.size - 1));
        let head = self.avail.load_u16(4 + 2 * slot, Ordering::Relaxed).ok_or(RingFault::AvailIndex)?;
        Ok(u16::from_le(head))
    }

    /// Follows a chain, each descriptor read once.
    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), RingFault> {
        chain.clear();
        chain.head = head;
        let mut table = None;
        let mut table_len = u32::from(self.size);
        let mut index = u32::from(head);
        for _ in 0..CHAIN_MAX {
            if index >= table_len {
                return Err(RingFault::DescIndex);
            }
            let mut raw = [0; DESC_LEN];
            let from = table.as_ref().unwrap_or(&self.desc);
            from.read(index as usize * DESC_LEN, &mut raw).ok_or(RingFault::DescIndex)?;
            let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
            let address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            let (flags, next) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([n0, n1]));
            if flags & F_INDIRECT != 0 {
                let bytes = len as usize;
                let fits = bytes != 0 && bytes.is_multiple_of(DESC_LEN) && bytes / DESC_LEN <= CHAIN_MAX;
                if !self.indirect || table.is_some() || !fits || flags & F_NEXT != 0 {
                    return Err(RingFault::Indirect);
                }
                table = Some(self.memory.of_guest(address, bytes).ok_or(RingFault::Address)?);
                table_len = len / DESC_LEN as u32;
                index = 0;
                continue;
            }
            let (pieces, total) = if flags & F_WRITE != 0 {
                (&mut chain.writable, &mut chain.writable_len)
            } else if chain.writable.is_empty() {
                (&mut chain.readable, &mut chain.readable_len)
            } else {
                return Err(RingFault::Order);
            };
            self.memory.pieces(address, len as usize, pieces).ok_or(RingFault::Address)?;
            *total += len as usize;
            if flags & F_NEXT == 0 {
                return Ok(());
            }
            index = u32::from(next);
        }
        Err(RingFault::ChainLength)
    }

    /// Copies from a chain's readable bytes, `skip` in; false if it has fewer.
    pub fn read(&self, chain: &Chain, mut skip: usize, mut out: &mut [u8]) -> bool {
        for piece in &chain.readable {
            if skip >= piece.len {
                skip -= piece.len;
                continue;
            }
            let n = out.len().min(piece.len - skip);
            let (now, rest) = out.split_at_mut(n);
            if self.memory.read(*piece, skip, now).is_none() {
                return false;
            }
            (skip, out) = (0, rest);
            if out.is_empty() {
                return true;
            }
        }
        out.is_empty()
    }

    /// Copies into pieces of a chain's writable bytes, `skip` in; how many bytes fitted.
    pub fn write(&self, pieces: &[Piece], mut skip: usize, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        for piece in pieces {
            if skip >= piece.len {
                skip -= piece.len;
                continue;
            }
            let n = rest.len().min(piece.len - skip);
            if self.memory.write(*piece, skip, &rest[..n], self.log.as_deref()).is_none() {
                break;
            }
            (skip, rest) = (0, &rest[n..]);
            if rest.is_empty() {
                break;
            }
        }
        bytes.len() - rest.len()
    }

    /// Gives a buffer back with `written` bytes in it; the driver sees it after [`Self::publish`].
    pub fn complete(&mut self, head: u16, written: u32) {
        let ahead = self.pending.len() as u16;
        let slot = usize::from(self.next_used.wrapping_add(ahead) & (self.size - 1));
        let entry = [u32::from(head).to_le_bytes(), written.to_le_bytes()].concat();
        let _ = self.used.write(4 + 8 * slot, &entry);
        self.log_used(4 + 8 * slot, 8);
        if let Some(inflight) = &self.inflight {
            inflight.completing(head);
        }
        self.pending.push(head);
    }

    /// Shows the driver what was given back.
    pub fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.next_used = self.next_used.wrapping_add(self.pending.len() as u16);
        let _ = self.used.store_u16(2, self.next_used.to_le(), Ordering::Release);
        self.log_used(2, 2);
        if let Some(inflight) = &self.inflight {
            inflight.completed(&self.pending, self.next_used);
        }
        self.pending.clear();
    }

    fn log_used(&self, at: usize, len: usize) {
        if let (Some(log), Some(base)) = (&self.log, self.used_log) {
            log.mark(base.wrapping_add(at as u64), len);
        }
    }

    /// Whether the driver wants to hear of what was published since the last signal. To be called once for each.
    pub fn should_signal(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let new = self.next_used;
        let old = self.signalled.replace(new);
        if old == Some(new) {
            return false;
        }
        if !self.event_idx {
            let flags = u16::from_le(self.avail.load_u16(0, Ordering::Relaxed).unwrap_or(0));
            return flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        let at = 4 + 2 * usize::from(self.size);
        let event = u16::from_le(self.avail.load_u16(at, Ordering::Relaxed).unwrap_or(0));
        old.is_none_or(|old| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// Asks the driver for notifications, or not to bother. With them on, look at [`Self::available`] once more.
    pub fn set_notify(&mut self, on: bool) {
        if self.event_idx {
            if on {
                let at = 4 + 8 * usize::from(self.size);
                let _ = self.used.store_u16(at, self.next_avail.to_le(), Ordering::Relaxed);
                self.log_used(at, 2);
            }
        } else {
            let flags = if on { 0 } else { USED_F_NO_NOTIFY };
            let _ = self.used.store_u16(0, flags.to_le(), Ordering::Relaxed);
            self.log_used(0, 2);
        }
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RegionSpec;
    use ib_sys::guest_memory::Mapping;

    const DESC: u64 = 0x1000;
    const AVAIL: u64 = 0x2000;
    const USED: u64 = 0x3000;

    /// Four descriptors in 64 KiB of memory at guest address 0.
    struct Bench {
        raw: SharedRange,
        ring: Ring,
    }

    fn bench(event_idx: bool) -> Bench {
        let raw = Mapping::anonymous(0x10000).unwrap();
        let mut memory = GuestMemory::default();
        memory.insert(RegionSpec { guest: 0, size: 0x10000, user: 0, offset: 0 }, raw.clone()).unwrap();
        let ring = Ring::new(RingConfig {
            memory: memory.into(),
            size: 4,
            desc: DESC,
            avail: AVAIL,
            used: USED,
            base: 0,
            event_idx,
            indirect: true,
            log: None,
            used_log: None,
            inflight: None,
        });
        Bench { raw, ring: ring.unwrap() }
    }

    impl Bench {
        fn desc(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
            let mut d = address.to_le_bytes().to_vec();
            d.extend(len.to_le_bytes());
            d.extend(flags.to_le_bytes());
            d.extend(next.to_le_bytes());
            self.raw.write(at as usize, &d).unwrap();
        }
        fn offer(&self, heads: &[u16], index: u16) {
            for (i, head) in heads.iter().enumerate() {
                self.raw.store_u16(AVAIL as usize + 4 + 2 * i, *head, Ordering::Relaxed).unwrap();
            }
            self.raw.store_u16(AVAIL as usize + 2, index, Ordering::Release).unwrap();
        }
    }

    #[test]
    fn a_chain_is_read_and_given_back() {
        let mut b = bench(false);
        b.raw.write(0x5000, b"hello world").unwrap();
        b.desc(DESC, 0x5000, 6, F_NEXT, 2);
        b.desc(DESC + 32, 0x5006, 5, 0, 0);
        b.offer(&[0], 1);
        let mut chain = Chain::default();
        assert!(b.ring.take(&mut chain));
        let mut out = [0; 9];
        assert!(b.ring.read(&chain, 2, &mut out));
        assert_eq!((&out, chain.readable_len), (b"llo world", 11));
        assert!(!b.ring.read(&chain, 3, &mut out), "one byte too many");
        assert!(!b.ring.take(&mut chain));
        b.ring.complete(chain.head, 0);
        assert_eq!(b.raw.load_u16(USED as usize + 2, Ordering::Relaxed), Some(0));
        b.ring.publish();
        assert_eq!(b.raw.load_u16(USED as usize + 2, Ordering::Relaxed), Some(1));
        assert!(b.ring.should_signal());
        assert!(!b.ring.should_signal());
    }

    #[test]
    fn what_a_hostile_driver_writes_breaks_its_ring() {
        type Make = fn(&Bench);
        let cases: [(Make, RingFault); 8] = [
            (|b| b.offer(&[], 5), RingFault::AvailIndex),
            (|b| b.offer(&[4], 1), RingFault::DescIndex),
            (
                |b| {
                    b.desc(DESC, 0x5000, 1, F_NEXT, 0);
                    b.offer(&[0], 1);
                },
                RingFault::ChainLength,
            ),
            (
                |b| {
                    b.desc(DESC, 0xffff, 2, 0, 0);
                    b.offer(&[0], 1);
                },
                RingFault::Address,
            ),
            (
                |b| {
                    b.desc(DESC, 0x5000, 4, F_WRITE | F_NEXT, 1);
                    b.desc(DESC + 16, 0x5000, 4, 0, 0);
                    b.offer(&[0], 1);
                },
                RingFault::Order,
            ),
            (
                |b| {
                    b.desc(DESC, 0x6000, 16, F_INDIRECT, 0);
                    b.desc(0x6000, 0x6000, 16, F_INDIRECT, 0);
                    b.offer(&[0], 1);
                },
                RingFault::Indirect,
            ),
            (
                |b| {
                    b.desc(DESC, 0x6000, 17, F_INDIRECT, 0);
                    b.offer(&[0], 1);
                },
                RingFault::Indirect,
            ),
            (
                |b| {
                    b.desc(DESC, 0x6000, 16, F_INDIRECT, 0);
                    b.desc(0x6000, 0x5000, 16, F_NEXT, 1);
                    b.offer(&[0], 1);
                },
                RingFault::DescIndex,
            ),
        ];
        for (make, fault) in cases {
            let mut b = bench(false);
            make(&b);
            assert!(!b.ring.take(&mut Chain::default()));
            assert_eq!(b.ring.fault(), Some(fault));
            assert_eq!(b.ring.available(), 0);
        }
    }

    #[test]
    fn the_driver_is_told_when_its_event_index_is_passed() {
        let mut b = bench(true);
        b.desc(DESC, 0x5000, 4, F_WRITE, 0);
        b.offer(&[0, 0, 0, 0], 4);
        let mut chain = Chain::default();
        let used_event = AVAIL as usize + 4 + 8;
        b.raw.store_u16(used_event, 2, Ordering::Relaxed).unwrap();
        let told: Vec<bool> = (0..4)
            .map(|_| {
                assert!(b.ring.take(&mut chain));
                assert_eq!(b.ring.write(&chain.writable, 1, b"abcd"), 3);
                b.ring.complete(chain.head, 4);
                b.ring.publish();
                b.ring.should_signal()
            })
            .collect();
        assert_eq!(told, [true, false, true, false], "the first one in any case");
        b.ring.set_notify(true);
        assert_eq!(b.raw.load_u16(USED as usize + 4 + 32, Ordering::Relaxed), Some(4));
    }
}
