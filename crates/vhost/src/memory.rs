//! A guest's memory: regions at guest addresses, and the log of pages that we wrote.
//!
//! Two address spaces name the same bytes: the guest's (in descriptors) and the front-end's (in ring addresses). A table
//! does not change: a new one replaces it in every ring at once.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ib_sys::guest_memory::{Mapping, SharedRange};

use crate::wire::RegionSpec;

/// Most regions that a guest may have (one by one, `ADD_MEM_REG`).
pub const REGIONS_MAX: usize = 64;
/// Bytes that one bit of the dirty log stands for.
const LOG_PAGE: u64 = 4096;

/// A mapped region.
#[derive(Clone, Debug)]
struct Region {
    spec: RegionSpec,
    range: SharedRange,
}

/// All regions of a guest, by guest address.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
}

/// Why a region is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryFault {
    /// No bytes, or an address that wraps around, or one that another region has.
    Addresses,
    /// The file is shorter than the region, or cannot be mapped.
    File,
    /// More regions than [`REGIONS_MAX`].
    TooMany,
    /// No such region.
    Unknown,
}

/// A piece of a buffer: bytes that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    region: u32,
    at: usize,
    /// Bytes.
    pub len: usize,
}

impl GuestMemory {
    /// One more region, mapped here.
    pub fn add(&mut self, spec: RegionSpec, fd: &OwnedFd) -> Result<(), MemoryFault> {
        let len = usize::try_from(spec.size).map_err(|_| MemoryFault::Addresses)?;
        self.check(spec)?;
        let range = Mapping::of_file(fd, spec.offset, len).map_err(|_| MemoryFault::File)?;
        self.insert(spec, range)
    }

    /// One more region, of memory that is mapped already; for tests and front-ends.
    pub fn insert(&mut self, spec: RegionSpec, range: SharedRange) -> Result<(), MemoryFault> {
        self.check(spec)?;
        if (range.len() as u64) < spec.size {
            return Err(MemoryFault::File);
        }
        let at = self.regions.partition_point(|r| r.spec.guest < spec.guest);
        self.regions.insert(at, Region { spec, range });
        Ok(())
    }

    fn check(&self, spec: RegionSpec) -> Result<(), MemoryFault> {
        let ends = |start: u64| start.checked_add(spec.size).ok_or(MemoryFault::Addresses);
        let (guest_end, user_end) = (ends(spec.guest)?, ends(spec.user)?);
        let overlaps = |r: &Region| {
            let (g, u) = (r.spec.guest, r.spec.user);
            (spec.guest < g + r.spec.size && g < guest_end) || (spec.user < u + r.spec.size && u < user_end)
        };
        if spec.size == 0 || self.regions.iter().any(overlaps) {
            return Err(MemoryFault::Addresses);
        }
        if self.regions.len() >= REGIONS_MAX {
            return Err(MemoryFault::TooMany);
        }
        Ok(())
    }

    /// Without the region at these addresses.
    pub fn remove(&mut self, spec: RegionSpec) -> Result<(), MemoryFault> {
        let same =
            |r: &Region| (r.spec.guest, r.spec.user, r.spec.size) == (spec.guest, spec.user, spec.size);
        let at = self.regions.iter().position(same).ok_or(MemoryFault::Unknown)?;
        self.regions.remove(at);
        Ok(())
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether a file was cut short under us.
    pub fn is_lost(&self) -> bool {
        self.regions.iter().any(|r| r.range.is_lost())
    }

    /// `len` bytes at an address of the front-end, which must lie in one region; with their guest address.
    pub fn of_user(&self, user: u64, len: usize) -> Option<(SharedRange, u64)> {
        self.regions.iter().find_map(|r| {
            let at = user.checked_sub(r.spec.user).filter(|at| *at < r.spec.size)?;
            let range = r.range.part(usize::try_from(at).ok()?, len)?;
            Some((range, r.spec.guest + at))
        })
    }

    /// `len` bytes at a guest address, which must lie in one region.
    pub fn of_guest(&self, guest: u64, len: usize) -> Option<SharedRange> {
        let (region, at) = self.find(guest)?;
        region.range.part(at, len)
    }

    fn find(&self, guest: u64) -> Option<(&Region, usize)> {
        let index = self.regions.partition_point(|r| r.spec.guest <= guest).checked_sub(1)?;
        let region = &self.regions[index];
        let at = guest - region.spec.guest;
        (at < region.spec.size).then(|| usize::try_from(at).ok().map(|at| (region, at)))?
    }

    /// Appends the pieces that make up `len` bytes at a guest address, one for each region that they cross;
    /// `None` if any of them is nobody's. At most [`REGIONS_MAX`] pieces.
    #[inline]
    pub fn pieces(&self, mut guest: u64, mut len: usize, out: &mut Vec<Piece>) -> Option<()> {
        while len > 0 {
            let index = self.regions.partition_point(|r| r.spec.guest <= guest).checked_sub(1)?;
            let region = &self.regions[index];
            let at = guest - region.spec.guest;
            let left = region.spec.size.checked_sub(at).filter(|l| *l > 0)?;
            let take = len.min(usize::try_from(left).unwrap_or(usize::MAX));
            let at = usize::try_from(at).ok()?;
            out.push(Piece { region: u32::try_from(index).ok()?, at, len: take });
            guest = guest.checked_add(take as u64)?;
            len -= take;
        }
        Some(())
    }

    /// Copies out of a piece, from `skip` on.
    #[inline]
    pub fn read(&self, piece: Piece, skip: usize, out: &mut [u8]) -> Option<()> {
        if skip.checked_add(out.len())? > piece.len {
            return None;
        }
        self.regions.get(piece.region as usize)?.range.read(piece.at + skip, out)
    }

    /// Copies into a piece, from `skip` on, and marks the pages.
    #[inline]
    pub fn write(&self, piece: Piece, skip: usize, bytes: &[u8], log: Option<&DirtyLog>) -> Option<()> {
        if skip.checked_add(bytes.len())? > piece.len {
            return None;
        }
        let region = self.regions.get(piece.region as usize)?;
        region.range.write(piece.at + skip, bytes)?;
        if let Some(log) = log {
            log.mark(region.spec.guest + (piece.at + skip) as u64, bytes.len());
        }
        Some(())
    }
}

/// A bit for each page of guest memory, in memory that the front-end shares (live migration).
#[derive(Clone, Debug)]
pub struct DirtyLog {
    bits: SharedRange,
}

impl DirtyLog {
    /// Maps it.
    pub fn of_file(fd: &OwnedFd, offset: u64, size: u64) -> Option<Arc<DirtyLog>> {
        let bits = Mapping::of_file(fd, offset, usize::try_from(size).ok()?).ok()?;
        Some(Arc::new(DirtyLog { bits }))
    }

    /// `len` bytes at a guest address were written. What lies beyond the log was not asked for.
    pub fn mark(&self, guest: u64, len: usize) {
        if len == 0 {
            return;
        }
        let last = guest.saturating_add(len as u64 - 1) / LOG_PAGE;
        for page in guest / LOG_PAGE..=last {
            let Ok(byte) = usize::try_from(page / 8) else { return };
            if self.bits.or_u8(byte, 1 << (page % 8)).is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(regions: &[(u64, u64)]) -> GuestMemory {
        let mut m = GuestMemory::default();
        for (guest, size) in regions {
            let spec = RegionSpec { guest: *guest, size: *size, user: guest + 0x7f00_0000_0000, offset: 0 };
            m.insert(spec, Mapping::anonymous(*size as usize).unwrap()).unwrap();
        }
        m
    }

    #[test]
    fn a_buffer_across_two_regions_is_two_pieces() {
        let m = memory(&[(0x2000, 0x1000), (0x1000, 0x1000)]);
        let mut pieces = Vec::new();
        m.pieces(0x1ff0, 0x20, &mut pieces).unwrap();
        assert_eq!(pieces.iter().map(|p| p.len).collect::<Vec<_>>(), [0x10, 0x10]);
        m.write(pieces[1], 1, b"abc", None).unwrap();
        let mut out = [0; 3];
        m.of_guest(0x2001, 3).unwrap().read(0, &mut out).unwrap();
        assert_eq!(&out, b"abc");
        assert_eq!(m.write(pieces[1], 0xe, b"abc", None), None, "beyond the piece");
        assert!(m.pieces(0x2ff0, 0x20, &mut pieces).is_none(), "beyond the last region");
        assert!(m.pieces(0xfff, 1, &mut pieces).is_none(), "before the first");
        assert!(m.pieces(u64::MAX, 2, &mut pieces).is_none());
        assert!(m.of_user(0x7f00_0000_1ff0, 0x20).is_none(), "rings lie in one region");
        assert_eq!(m.of_user(0x7f00_0000_2ff0, 0x10).unwrap().1, 0x2ff0);
    }

    #[test]
    fn regions_that_cannot_be_are_refused() {
        let mut m = memory(&[(0x1000, 0x1000)]);
        let mut add = |guest, size, user| {
            let spec = RegionSpec { guest, size, user, offset: 0 };
            m.insert(spec, Mapping::anonymous(0x1000).unwrap())
        };
        assert_eq!(add(0x1fff, 0x1000, 0), Err(MemoryFault::Addresses));
        assert_eq!(add(0, 0x1001, 0), Err(MemoryFault::Addresses));
        assert_eq!(add(u64::MAX, 0x1000, 0), Err(MemoryFault::Addresses));
        assert_eq!(add(0x8000, 0, 0), Err(MemoryFault::Addresses));
        assert_eq!(add(0x8000, 0x1000, 0x7f00_0000_1800), Err(MemoryFault::Addresses));
        assert_eq!(add(0x8000, 0x1001, 0), Err(MemoryFault::File));
        assert_eq!(add(0x8000, 0x1000, 0), Ok(()));
    }

    #[test]
    fn written_pages_are_marked_and_no_others() {
        let bits = Mapping::anonymous(2).unwrap();
        let log = DirtyLog { bits: bits.clone() };
        log.mark(0x1fff, 2);
        log.mark(15 * 4096, 1 << 40);
        log.mark(u64::MAX, 10);
        let mut out = [0; 2];
        bits.read(0, &mut out).unwrap();
        assert_eq!(out, [0b110, 0x80]);
    }
}
