//! The record of buffers under way (`VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD`), split rings.
//!
//! It lies in memory that the front-end keeps while we restart. A buffer is entered when it is taken and crossed off once
//! the used ring shows it; what is still entered when we come back was taken and never given back, and is done
//! again in the order in which it was taken. The layout is that of QEMU's docs/interop/vhost-user ("Inflight I/O
//! tracking"): a header of 16 bytes, then 16 bytes a descriptor.

use std::sync::atomic::Ordering;

use ib_sys::guest_memory::SharedRange;

const HEADER: usize = 16;
const ENTRY: usize = 16;
const VERSION: u16 = 1;
/// Each ring's record begins at a multiple of this.
const ALIGN: usize = 64;

// Offsets in the header.
const AT_VERSION: usize = 8;
const AT_DESC_NUM: usize = 10;
const AT_LAST_HEAD: usize = 12;
const AT_USED_IDX: usize = 14;
// Offsets in an entry.
const AT_INFLIGHT: usize = 0;
const AT_NEXT: usize = 6;
const AT_COUNTER: usize = 8;

/// Bytes of one ring's record.
pub fn record_len(queue_size: u16) -> usize {
    (HEADER + ENTRY * usize::from(queue_size)).next_multiple_of(ALIGN)
}

/// One ring's record.
#[derive(Clone, Debug)]
pub struct Inflight {
    record: SharedRange,
    size: u16,
    counter: u64,
}

impl Inflight {
    /// Ring `index`'s part of the whole; `None` if it does not fit.
    pub fn new(whole: &SharedRange, index: usize, queue_size: u16) -> Option<Inflight> {
        let len = record_len(queue_size);
        let record = whole.part(index.checked_mul(len)?, len)?;
        Some(Inflight { record, size: queue_size, counter: 0 })
    }

    fn entry(&self, head: u16) -> Option<usize> {
        (head < self.size).then(|| HEADER + ENTRY * usize::from(head))
    }
    fn is_inflight(&self, head: u16) -> bool {
        let Some(at) = self.entry(head) else { return false };
        let mut flag = [0];
        self.record.read(at + AT_INFLIGHT, &mut flag).is_some() && flag[0] == 1
    }
    fn set_inflight(&self, head: u16, on: bool) {
        if let Some(at) = self.entry(head) {
            let _ = self.record.write(at + AT_INFLIGHT, &[u8::from(on)]);
        }
    }
    fn load(&self, at: usize) -> u16 {
        self.record.load_u16(at, Ordering::Acquire).unwrap_or(0)
    }
    fn store(&self, at: usize, value: u16) {
        let _ = self.record.store_u16(at, value, Ordering::Release);
    }

    /// What was under way, oldest first, given the used ring's index: the heads to do again.
    pub fn recover(&mut self, used_idx: u16) -> Vec<u16> {
        if self.load(AT_VERSION) != VERSION || self.load(AT_DESC_NUM) != self.size {
            // A fresh record.
            let _ = self.record.write(0, &[0; HEADER]);
            self.store(AT_VERSION, VERSION);
            self.store(AT_DESC_NUM, self.size);
            self.store(AT_USED_IDX, used_idx);
            (0..self.size).for_each(|head| self.set_inflight(head, false));
            return Vec::new();
        }
        // The last batch was shown in the used ring, and we ended before it was crossed off.
        let batch = used_idx.wrapping_sub(self.load(AT_USED_IDX));
        let mut head = self.load(AT_LAST_HEAD);
        for _ in 0..batch.min(self.size) {
            self.set_inflight(head, false);
            let Some(at) = self.entry(head) else { break };
            head = self.load(at + AT_NEXT);
        }
        self.store(AT_USED_IDX, used_idx);
        let mut under_way: Vec<(u64, u16)> = (0..self.size)
            .filter(|head| self.is_inflight(*head))
            .filter_map(|head| Some((self.record.load_u64(self.entry(head)? + AT_COUNTER)?, head)))
            .collect();
        under_way.sort_unstable();
        self.counter = under_way.last().map_or(0, |(c, _)| c.wrapping_add(1));
        under_way.into_iter().map(|(_, head)| head).collect()
    }

    /// A buffer was taken.
    pub fn taken(&mut self, head: u16) {
        if let Some(at) = self.entry(head) {
            let _ = self.record.store_u64(at + AT_COUNTER, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.set_inflight(head, true);
        }
    }

    /// A buffer is about to be shown in the used ring.
    pub fn completing(&self, head: u16) {
        if let Some(at) = self.entry(head) {
            self.store(at + AT_NEXT, self.load(AT_LAST_HEAD));
            self.store(AT_LAST_HEAD, head);
        }
    }

    /// Buffers are in the used ring, whose index is now `used_idx`.
    pub fn completed(&self, heads: &[u16], used_idx: u16) {
        heads.iter().for_each(|head| self.set_inflight(*head, false));
        self.store(AT_USED_IDX, used_idx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_sys::guest_memory::Mapping;

    #[test]
    fn what_was_taken_and_not_given_back_is_done_again_in_order() {
        let whole = Mapping::anonymous(2 * record_len(8)).unwrap();
        let mut a = Inflight::new(&whole, 1, 8).unwrap();
        assert!(a.recover(5).is_empty());
        [3, 1, 7].into_iter().for_each(|head| a.taken(head));
        a.completing(1);
        a.completed(&[1], 6);
        // We end here, and come back.
        let mut b = Inflight::new(&whole, 1, 8).unwrap();
        assert_eq!(b.recover(6), [3, 7]);
        b.taken(0);
        assert_eq!(Inflight::new(&whole, 1, 8).unwrap().recover(6), [3, 7, 0]);
    }

    #[test]
    fn a_batch_that_was_shown_but_not_crossed_off_is_not_done_again() {
        let whole = Mapping::anonymous(record_len(8)).unwrap();
        let mut a = Inflight::new(&whole, 0, 8).unwrap();
        a.recover(0);
        [4, 2, 6].into_iter().for_each(|head| a.taken(head));
        a.completing(4);
        a.completing(2);
        // The used ring says 2; we end here.
        assert_eq!(Inflight::new(&whole, 0, 8).unwrap().recover(2), [6]);
    }

    #[test]
    fn a_record_full_of_nonsense_is_bounded() {
        let whole = Mapping::anonymous(record_len(8)).unwrap();
        whole.write(0, &vec![0xff; whole.len()]).unwrap();
        whole.store_u16(AT_VERSION, 1, Ordering::Relaxed).unwrap();
        whole.store_u16(AT_DESC_NUM, 8, Ordering::Relaxed).unwrap();
        assert!(Inflight::new(&whole, 0, 8).unwrap().recover(77).len() <= 8);
        assert!(Inflight::new(&whole, 1, 8).is_none());
    }
}
