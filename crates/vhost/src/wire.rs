//! Messages as bytes (QEMU's docs/interop/vhost-user: "Message Specification"). Numbers are in the machine's order: the peer is
//! on the same machine.
//!
//! A message is a header of twelve bytes (request, flags, size of what follows) and a payload whose shape the request
//! tells. Descriptors travel with its first byte. [`Assembler`] puts messages together from whatever pieces a socket
//! gives; it holds one at a time, so a peer's memory is bounded.

use std::os::fd::OwnedFd;

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// Longest payload that any request of ours has; also what a peer may announce.
pub const PAYLOAD_MAX: usize = 4096;
/// Most descriptors with a message: one for each region of a memory table.
pub const FDS_MAX: usize = 8;
/// Most regions in a `SET_MEM_TABLE`.
pub const TABLE_REGIONS_MAX: usize = 8;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;

/// In the number of `SET_VRING_KICK`, `_CALL`, `_ERR`: which ring.
pub const VRING_INDEX_MASK: u64 = 0xff;
/// In the same number: no descriptor comes along.
pub const VRING_NOFD: u64 = 1 << 8;

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a front-end asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Request { $($(#[$doc])* $name = $number),* }

        impl Request {
            /// Every one that we know.
            pub const ALL: &'static [Request] = &[$(Request::$name),*];
            /// By number.
            pub fn from_number(n: u32) -> Option<Request> {
                match n { $($number => Some(Request::$name),)* _ => None }
            }
        }
    };
}

requests! {
    /// Virtio features on offer.
    GetFeatures = 1,
    /// Virtio features in force.
    SetFeatures = 2,
    /// The front-end is there.
    SetOwner = 3,
    /// Ends what `SetOwner` began; out of use.
    ResetOwner = 4,
    /// All memory regions, in place of those before.
    SetMemTable = 5,
    /// The dirty log.
    SetLogBase = 6,
    /// What to signal when the log has news.
    SetLogFd = 7,
    /// Size of a ring.
    SetVringNum = 8,
    /// Addresses of a ring.
    SetVringAddr = 9,
    /// Where a ring goes on.
    SetVringBase = 10,
    /// Stops a ring and asks where it was.
    GetVringBase = 11,
    /// The driver's notifications; starts a ring.
    SetVringKick = 12,
    /// The device's notifications.
    SetVringCall = 13,
    /// What to signal when a ring is broken.
    SetVringErr = 14,
    /// Protocol features on offer.
    GetProtocolFeatures = 15,
    /// Protocol features in force.
    SetProtocolFeatures = 16,
    /// Most pairs of queues.
    GetQueueNum = 17,
    /// Turns a ring on or off.
    SetVringEnable = 18,
    /// Announce this Ethernet address.
    SendRarp = 19,
    /// The guest's MTU.
    NetSetMtu = 20,
    /// Asks for a record of buffers under way.
    GetInflightFd = 31,
    /// Gives one back.
    SetInflightFd = 32,
    /// Back to the state after connecting.
    ResetDevice = 34,
    /// Most memory regions.
    GetMaxMemSlots = 36,
    /// One more memory region.
    AddMemReg = 37,
    /// One fewer.
    RemMemReg = 38,
    /// The virtio status field.
    SetStatus = 39,
    /// Reads it.
    GetStatus = 40,
}

/// One message with its descriptors.
#[derive(Debug)]
pub struct Message {
    /// Number of the request; see [`Request::from_number`].
    pub request: u32,
    /// The sender wants an answer in any case (`REPLY_ACK`).
    pub need_reply: bool,
    /// This is an answer.
    pub is_reply: bool,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Descriptors.
    pub fds: Vec<OwnedFd>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// Another version of the protocol.
    Version(u32),
    /// A payload longer than any that we know.
    TooLong(u32),
    /// More descriptors than any message has.
    TooManyFds,
}

impl Message {
    /// A request without descriptors.
    pub fn new(request: Request, payload: Vec<u8>) -> Message {
        Message { request: request as u32, need_reply: false, is_reply: false, payload, fds: Vec::new() }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut flags = VERSION;
        if self.is_reply {
            flags |= FLAG_REPLY;
        }
        if self.need_reply {
            flags |= FLAG_NEED_REPLY;
        }
        let mut out = Vec::with_capacity(HEADER_LEN + self.payload.len());
        out.extend_from_slice(&self.request.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_ne_bytes());
        out.extend_from_slice(&self.payload);
        out
    }
}

/// Puts messages together. Ask [`Self::wanted`] how much to read, so that descriptors stay with the message that they
/// came with.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

impl Assembler {
    /// Bytes that the message under way lacks; at least one.
    pub fn wanted(&self) -> usize {
        let Some(size) = u32_at(&self.bytes, 8) else { return HEADER_LEN - self.bytes.len() };
        (HEADER_LEN + size as usize).saturating_sub(self.bytes.len()).max(1)
    }

    /// Takes at most [`Self::wanted`] bytes, and the descriptors that came with them; a message when it is whole.
    pub fn feed(&mut self, bytes: &[u8], fds: &mut Vec<OwnedFd>) -> Result<Option<Message>, WireFault> {
        self.bytes.extend_from_slice(bytes);
        self.fds.append(fds);
        if self.fds.len() > FDS_MAX {
            return Err(WireFault::TooManyFds);
        }
        let (Some(request), Some(flags), Some(size)) =
            (u32_at(&self.bytes, 0), u32_at(&self.bytes, 4), u32_at(&self.bytes, 8))
        else {
            return Ok(None);
        };
        if flags & VERSION_MASK != VERSION {
            return Err(WireFault::Version(flags & VERSION_MASK));
        }
        if size as usize > PAYLOAD_MAX {
            return Err(WireFault::TooLong(size));
        }
        if self.bytes.len() < HEADER_LEN + size as usize {
            return Ok(None);
        }
        let payload = self.bytes[HEADER_LEN..].to_vec();
        self.bytes.clear();
        Ok(Some(Message {
            request,
            need_reply: flags & FLAG_NEED_REPLY != 0,
            is_reply: flags & FLAG_REPLY != 0,
            payload,
            fds: std::mem::take(&mut self.fds),
        }))
    }
}

/// A ring and a number: `SET_VRING_NUM`, `_BASE`, `_ENABLE`, `GET_VRING_BASE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    /// Which ring.
    pub index: u32,
    /// The number.
    pub num: u32,
}

impl VringState {
    /// Reads it.
    pub fn parse(b: &[u8]) -> Option<VringState> {
        Some(VringState { index: u32_at(b, 0)?, num: u32_at(b, 4)? })
    }
    /// As bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.index.to_ne_bytes(), self.num.to_ne_bytes()].concat()
    }
}

/// Where a ring lies, in the front-end's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddr {
    /// Which ring.
    pub index: u32,
    /// Bit 0: mark writes to the used ring in the dirty log.
    pub flags: u32,
    /// The table of descriptors.
    pub desc: u64,
    /// What the device has used.
    pub used: u64,
    /// What the driver offers.
    pub avail: u64,
    /// The used ring's address for the dirty log, a guest's.
    pub log: u64,
}

impl VringAddr {
    /// Reads it.
    pub fn parse(b: &[u8]) -> Option<VringAddr> {
        Some(VringAddr {
            index: u32_at(b, 0)?,
            flags: u32_at(b, 4)?,
            desc: u64_at(b, 8)?,
            used: u64_at(b, 16)?,
            avail: u64_at(b, 24)?,
            log: u64_at(b, 32)?,
        })
    }
    /// As bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = [self.index.to_ne_bytes(), self.flags.to_ne_bytes()].concat();
        for v in [self.desc, self.used, self.avail, self.log] {
            out.extend_from_slice(&v.to_ne_bytes());
        }
        out
    }
}

/// A region of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// First guest address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// First address in the front-end.
    pub user: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// Bytes of a region on the wire.
const REGION_LEN: usize = 32;

impl RegionSpec {
    fn parse(b: &[u8]) -> Option<RegionSpec> {
        Some(RegionSpec {
            guest: u64_at(b, 0)?,
            size: u64_at(b, 8)?,
            user: u64_at(b, 16)?,
            offset: u64_at(b, 24)?,
        })
    }
    fn push(self, out: &mut Vec<u8>) {
        for v in [self.guest, self.size, self.user, self.offset] {
            out.extend_from_slice(&v.to_ne_bytes());
        }
    }

    /// Reads the payload of `ADD_MEM_REG` and `REM_MEM_REG`.
    pub fn parse_single(b: &[u8]) -> Option<RegionSpec> {
        RegionSpec::parse(b.get(8..)?)
    }
    /// As the payload of `ADD_MEM_REG` and `REM_MEM_REG`.
    pub fn to_single(self) -> Vec<u8> {
        let mut out = vec![0; 8];
        self.push(&mut out);
        out
    }
    /// Reads the payload of `SET_MEM_TABLE`.
    pub fn parse_table(b: &[u8]) -> Option<Vec<RegionSpec>> {
        let n = u32_at(b, 0)? as usize;
        if n > TABLE_REGIONS_MAX {
            return None;
        }
        (0..n).map(|i| RegionSpec::parse(b.get(8 + i * REGION_LEN..)?)).collect()
    }
    /// As the payload of `SET_MEM_TABLE`.
    pub fn to_table(regions: &[RegionSpec]) -> Vec<u8> {
        let n = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        let mut out = [n.to_ne_bytes(), [0; 4]].concat();
        regions.iter().for_each(|r| r.push(&mut out));
        out
    }
}

/// `GET_INFLIGHT_FD`, `SET_INFLIGHT_FD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightSpec {
    /// Bytes of the record.
    pub size: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Rings.
    pub queues: u16,
    /// Descriptors of each.
    pub queue_size: u16,
}

impl InflightSpec {
    /// Reads it.
    pub fn parse(b: &[u8]) -> Option<InflightSpec> {
        let u16_at = |at: usize| Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?));
        Some(InflightSpec {
            size: u64_at(b, 0)?,
            offset: u64_at(b, 8)?,
            queues: u16_at(16)?,
            queue_size: u16_at(18)?,
        })
    }
    /// As bytes, padded to the structure's size in C.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = [self.size.to_ne_bytes(), self.offset.to_ne_bytes()].concat();
        out.extend_from_slice(&self.queues.to_ne_bytes());
        out.extend_from_slice(&self.queue_size.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    }
}

/// A payload that is one number.
pub fn parse_u64(b: &[u8]) -> Option<u64> {
    u64_at(b, 0)
}

/// The dirty log: bytes and where it begins in the file.
pub fn parse_log(b: &[u8]) -> Option<(u64, u64)> {
    Some((u64_at(b, 0)?, u64_at(b, 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_together_from_single_bytes() {
        let sent = Message::new(Request::SetVringNum, VringState { index: 1, num: 256 }.to_bytes());
        let bytes = sent.to_bytes();
        let mut a = Assembler::default();
        for (i, byte) in bytes.iter().enumerate() {
            assert!(a.wanted() <= bytes.len() - i);
            let got = a.feed(&[*byte], &mut Vec::new()).unwrap();
            assert_eq!(got.is_some(), i + 1 == bytes.len());
            if let Some(m) = got {
                assert_eq!((m.request, m.is_reply, m.need_reply), (8, false, false));
                assert_eq!(VringState::parse(&m.payload), Some(VringState { index: 1, num: 256 }));
            }
        }
        assert_eq!(a.wanted(), HEADER_LEN);
    }

    #[test]
    fn what_no_front_end_sends_ends_the_conversation() {
        let header = |flags: u32, size: u32| [1u32, flags, size].map(u32::to_ne_bytes).concat();
        let feed = |b: &[u8]| Assembler::default().feed(b, &mut Vec::new()).map(|m| m.is_some());
        assert_eq!(feed(&header(2, 0)), Err(WireFault::Version(2)));
        assert_eq!(feed(&header(1, 1 << 20)), Err(WireFault::TooLong(1 << 20)));
        assert_eq!(feed(&header(1, 0)), Ok(true));
    }

    #[test]
    fn payloads_survive_the_round_trip() {
        let a = VringAddr { index: 3, flags: 1, desc: 5, used: 6, avail: 7, log: 8 };
        assert_eq!(VringAddr::parse(&a.to_bytes()), Some(a));
        let r = RegionSpec { guest: 1, size: 2, user: 3, offset: 4 };
        assert_eq!(RegionSpec::parse_table(&RegionSpec::to_table(&[r, r])), Some(vec![r, r]));
        assert_eq!(RegionSpec::parse_single(&r.to_single()), Some(r));
        assert_eq!(RegionSpec::parse_table(&[9, 0, 0, 0, 0, 0, 0, 0]), None, "nine regions");
        let i = InflightSpec { size: 1, offset: 2, queues: 3, queue_size: 4 };
        assert_eq!(InflightSpec::parse(&i.to_bytes()), Some(i));
        for request in Request::ALL {
            assert_eq!(Request::from_number(*request as u32), Some(*request));
        }
    }
}
