//! The packet buffer.
//!
//! A [`Packet`] owns its bytes with headroom in front, so that pushing a VLAN tag or a tunnel header
//! moves no payload, and carries [`Offload`], the virtio-net header's semantics: a 64 KiB TCP
//! super-frame with a partial checksum is one `Packet` from the port it enters by to the port it leaves by.
//!
//! A packet starts at its Ethernet header, unless `ethernet` is false (an L3 port's packet, which
//! starts at its IP header). Nothing here allocates in steady state: buffers come from and return to a
//! [`Pool`] that belongs to one thread.

use crate::be::Be16;

/// Bytes kept free in front of a packet that was received: the outermost tunnel header that we push
/// (Ethernet, VLAN, IPv6, UDP, Geneve with options) and a virtio-net header fit.
pub const HEADROOM: usize = 256;

/// What segmentation a super-frame still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP segmentation (USO, `SKB_GSO_UDP_L4`), either IP version.
    UdpL4,
}

/// A super-frame: payload longer than one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Which segmentation.
    pub kind: GsoKind,
    /// Payload bytes a segment.
    pub size: u16,
    /// TCP: congestion-window-reduced must only go into the first segment (virtio ECN bit).
    pub ecn: bool,
}

/// The virtio-net header's meaning, independent of its layout (virtio 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// L4 checksum is partial: sum from `csum_start` (offset from the packet's first byte) to its end
    /// and store it at `csum_start + csum_offset`.
    pub partial_csum: Option<(u16, u16)>,
    /// The L4 checksum was verified by who gave us the packet.
    pub csum_valid: bool,
    /// The IPv4 header's checksum was verified by who gave us the packet, whatever it may look like: a change of the
    /// header computes it anew.
    pub ip_csum_valid: bool,
    /// Segmentation still to be done.
    pub gso: Option<Gso>,
    /// Total header length hint (L2 to L4) of a super-frame; 0 unknown.
    pub hdr_len: u16,
}

impl Offload {
    /// Nothing left to do for whoever sends this packet: plain bytes.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.partial_csum.is_none() && self.gso.is_none()
    }
}

/// A packet that this thread owns.
pub struct Packet {
    buf: Vec<u8>,
    start: usize,
    /// Bytes from the buffer's begin that were ever written, and the capacity at which that was noted: it holds
    /// until the buffer is reallocated.
    written: (usize, usize),
    /// Offload metadata; see [`Offload`].
    pub offload: Offload,
    /// First byte is an Ethernet header. False on L3 ports, where `l3_type` tells the protocol.
    pub ethernet: bool,
    /// Ethertype of a packet without Ethernet header; unspecified otherwise.
    pub l3_type: Be16,
    /// Receive hash from the port, 0 if none. May be used for load balancing only.
    pub rss_hash: u32,
    /// Queue of the port that it leaves by; 0 is the default one.
    pub queue: u32,
}

impl Packet {
    /// An empty packet with room for `capacity` bytes behind [`HEADROOM`].
    pub fn with_capacity(capacity: usize) -> Packet {
        let mut buf = Vec::with_capacity(HEADROOM + capacity);
        buf.resize(HEADROOM, 0);
        Packet {
            buf,
            start: HEADROOM,
            written: (0, 0),
            offload: Offload::default(),
            ethernet: true,
            l3_type: Be16::ZERO,
            rss_hash: 0,
            queue: 0,
        }
    }

    /// A copy of an Ethernet frame.
    pub fn from_frame(frame: &[u8]) -> Packet {
        let mut p = Packet::with_capacity(frame.len());
        p.buf.extend_from_slice(frame);
        p
    }

    /// Empties it for reuse: no bytes, default metadata, full headroom.
    #[inline]
    pub fn reset(&mut self) {
        self.buf.truncate(HEADROOM);
        self.buf.resize(HEADROOM, 0);
        self.start = HEADROOM;
        self.offload = Offload::default();
        self.ethernet = true;
        self.l3_type = Be16::ZERO;
        self.rss_hash = 0;
        self.queue = 0;
    }

    /// The bytes.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.buf[self.start..]
    }
    /// The bytes, mutable.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..]
    }
    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len() - self.start
    }
    /// No bytes at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes free in front.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Puts `n` bytes (unspecified content) in front and returns the whole packet's bytes.
    /// Moves the payload only when headroom has run out. Partial-checksum offsets move along.
    pub fn push_front(&mut self, n: usize) -> &mut [u8] {
        if self.start < n {
            let grow = n - self.start + HEADROOM;
            self.buf.splice(0..0, std::iter::repeat_n(0, grow));
            self.start += grow;
        }
        self.start -= n;
        self.shift_offload(isize::try_from(n).unwrap_or(isize::MAX));
        self.data_mut()
    }

    /// Takes up to `n` bytes off the front. A partial checksum whose start is cut away is forgotten.
    pub fn pull_front(&mut self, n: usize) {
        let n = n.min(self.len());
        self.start += n;
        self.shift_offload(-isize::try_from(n).unwrap_or(isize::MAX));
    }

    fn shift_offload(&mut self, by: isize) {
        let moved = |v: u16| u16::try_from(by.saturating_add(v as isize)).ok();
        if let Some((start, offset)) = self.offload.partial_csum {
            self.offload.partial_csum = moved(start).map(|s| (s, offset));
        }
        if self.offload.hdr_len != 0 {
            self.offload.hdr_len = moved(self.offload.hdr_len).unwrap_or(0);
        }
    }

    /// Inserts `n` zero bytes at `at` by moving the bytes in front of it forward (VLAN push and the like).
    pub fn insert(&mut self, at: usize, n: usize) {
        let at = at.min(self.len());
        self.push_front(n);
        self.data_mut().copy_within(n..n + at, 0);
        self.data_mut()[at..at + n].fill(0);
    }

    /// Removes up to `n` bytes at `at` by moving the bytes in front of it backward.
    pub fn remove(&mut self, at: usize, n: usize) {
        let at = at.min(self.len());
        let n = n.min(self.len() - at);
        self.data_mut().copy_within(0..at, n);
        self.pull_front(n);
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }
    /// Cuts to `len` bytes, or pads with zeroes up to it.
    pub fn resize(&mut self, len: usize) {
        self.buf.resize(self.start + len, 0);
    }

    /// Room of `len` bytes behind the headroom for a port to receive into; follow with [`Self::resize`].
    pub fn recv_room(&mut self, len: usize) -> &mut [u8] {
        self.buf.resize(self.start + len, 0);
        self.data_mut()
    }

    /// All the room that the buffer has behind the headroom without growing, at least `min` bytes, for a port to
    /// receive into; follow with [`Self::resize`]. What is in there is unspecified. Costs nothing on a buffer that was
    /// used so before: bytes are zeroed only where none were ever written.
    pub fn recv_room_all(&mut self, min: usize) -> &mut [u8] {
        let len = self.buf.capacity().max(self.start + min);
        let capacity = self.buf.capacity();
        if self.written == (len, capacity) {
            // SAFETY: `len` bytes of this very allocation were initialised when `written` was noted, and a vector
            // never un-initialises its spare capacity; another allocation would have another capacity, as
            // a vector's buffer only grows.
            #[allow(unsafe_code)]
            unsafe {
                self.buf.set_len(len);
            }
        } else {
            self.buf.resize(len, 0);
            self.written = (self.buf.len(), self.buf.capacity());
        }
        self.data_mut()
    }
}

impl Clone for Packet {
    fn clone(&self) -> Packet {
        let mut p = Packet::with_capacity(self.len());
        p.buf.extend_from_slice(self.data());
        p.offload = self.offload;
        p.ethernet = self.ethernet;
        p.l3_type = self.l3_type;
        p.rss_hash = self.rss_hash;
        p.queue = self.queue;
        p
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({} bytes, {:?})", self.len(), self.offload)
    }
}

/// Most packets handled in one go.
pub const BATCH_MAX: usize = 32;

/// Packets that travel together, in order; at most [`BATCH_MAX`] by convention.
pub type Batch = Vec<Packet>;

/// Free packets of one thread. `take` never fails; `give` keeps at most `max`.
pub struct Pool {
    free: Vec<Packet>,
    max: usize,
}

impl Pool {
    /// A pool that keeps up to `max` free packets.
    pub fn new(max: usize) -> Pool {
        Pool { free: Vec::new(), max }
    }
    /// An empty packet, reused if there is one.
    #[inline]
    pub fn take(&mut self) -> Packet {
        self.free.pop().unwrap_or_else(|| Packet::with_capacity(2048))
    }
    /// Returns a packet for reuse.
    #[inline]
    pub fn give(&mut self, mut p: Packet) {
        if self.free.len() < self.max {
            p.reset();
            self.free.push(p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_and_remove_keep_the_rest_and_the_checksum_offset() {
        let mut p = Packet::from_frame(&[1, 2, 3, 4, 5, 6]);
        p.offload.partial_csum = Some((4, 1));
        p.insert(2, 4);
        assert_eq!(p.data(), &[1, 2, 0, 0, 0, 0, 3, 4, 5, 6]);
        assert_eq!(p.offload.partial_csum, Some((8, 1)));
        p.remove(2, 4);
        assert_eq!(p.data(), &[1, 2, 3, 4, 5, 6]);
        assert_eq!(p.offload.partial_csum, Some((4, 1)));
    }

    #[test]
    fn receive_room_is_kept_and_follows_the_buffer() {
        let mut p = Packet::with_capacity(100);
        let room = p.recv_room_all(50).len();
        assert!(room >= 100);
        p.data_mut().fill(7);
        p.reset();
        assert_eq!(p.recv_room_all(50).len(), room);
        p.resize(3);
        assert_eq!(p.len(), 3);
        p.extend(&vec![1; 70_000]);
        p.reset();
        assert!(p.recv_room_all(50).len() >= 70_003);
    }

    #[test]
    fn headroom_grows_when_it_runs_out() {
        let mut p = Packet::from_frame(&[9]);
        for _ in 0..3 {
            p.push_front(200).iter_mut().take(200).for_each(|b| *b = 7);
        }
        assert_eq!(p.len(), 601);
        assert_eq!(p.data()[600], 9);
    }

    #[test]
    fn checksum_offset_past_32k_survives_a_push() {
        let mut p = Packet::from_frame(&[0; 60_000]);
        p.offload.partial_csum = Some((40_000, 16));
        p.push_front(4);
        assert_eq!(p.offload.partial_csum, Some((40_004, 16)));
    }
}
