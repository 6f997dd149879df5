//! Packet capture files (libpcap's format, version 2.4).

use std::io::{self, Read, Write};
use std::time::Duration;

const MAGIC_US: u32 = 0xa1b2_c3d4;
const MAGIC_NS: u32 = 0xa1b2_3c4d;
/// Link type: Ethernet.
pub const LINKTYPE_ETHERNET: u32 = 1;
/// Longest packet that a reader accepts; more is a broken file.
const MAX_LEN: u32 = 1 << 18;

/// Writes captured packets.
pub struct PcapWriter<W: Write>(W);

impl<W: Write> PcapWriter<W> {
    /// Writes the file's header.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut h = Vec::with_capacity(24);
        h.extend_from_slice(&MAGIC_US.to_ne_bytes());
        h.extend_from_slice(&2u16.to_ne_bytes());
        h.extend_from_slice(&4u16.to_ne_bytes());
        h.extend_from_slice(&[0; 8]);
        h.extend_from_slice(&1518u32.to_ne_bytes());
        h.extend_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
        out.write_all(&h)?;
        Ok(PcapWriter(out))
    }
    /// Continues a file that has a header.
    pub fn append(out: W) -> Self {
        PcapWriter(out)
    }
    /// Writes a packet captured at `time` after the epoch, in one call of `write`.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut rec = Vec::with_capacity(16 + frame.len());
        rec.extend_from_slice(&(time.as_secs() as u32).to_ne_bytes());
        rec.extend_from_slice(&time.subsec_micros().to_ne_bytes());
        rec.extend_from_slice(&len.to_ne_bytes());
        rec.extend_from_slice(&len.to_ne_bytes());
        rec.extend_from_slice(frame);
        self.0.write_all(&rec)
    }
    /// Flushes and returns what it wrote to.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

/// Reads captured packets, written on a machine of either byte order.
pub struct PcapReader<R: Read> {
    input: R,
    swap: bool,
    nanoseconds: bool,
    /// Link type of the packets.
    pub linktype: u32,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file's header.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut h = [0; 24];
        input.read_exact(&mut h)?;
        let word = |at: usize| u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let (swap, nanoseconds) = match word(0) {
            MAGIC_US => (false, false),
            MAGIC_NS => (false, true),
            m if m == MAGIC_US.swap_bytes() => (true, false),
            m if m == MAGIC_NS.swap_bytes() => (true, true),
            magic => {
                let why = format!(
                    "bad magic {magic:#010x} reading pcap file (expected 0xa1b2c3d4, 0xa1b23c4d, 0xd4c3b2a1, or 0x4d3cb2a1)"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        };
        let linktype = if swap { word(20).swap_bytes() } else { word(20) } & 0x0fff_ffff;
        Ok(PcapReader { input, swap, nanoseconds, linktype })
    }

    /// The next packet and its time after the epoch; `None` at the end.
    pub fn read(&mut self) -> io::Result<Option<(Duration, Vec<u8>)>> {
        let mut h = [0; 16];
        let mut got = 0;
        while got < h.len() {
            match self.input.read(&mut h[got..])? {
                0 if got == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => got += n,
            }
        }
        let word = |at: usize| {
            let v = u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
            if self.swap { v.swap_bytes() } else { v }
        };
        let (secs, frac, len) = (word(0), word(4), word(8));
        if len > MAX_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bad packet length in pcap file"));
        }
        let mut frame = vec![0; len as usize];
        self.input.read_exact(&mut frame)?;
        let nanos = if self.nanoseconds { frac.into() } else { u64::from(frac) * 1000 };
        Ok(Some((Duration::from_secs(secs.into()) + Duration::from_nanos(nanos), frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut w = PcapWriter::new(Vec::new()).unwrap();
        w.write(Duration::from_micros(1_500_000), &[1, 2, 3]).unwrap();
        w.write(Duration::from_secs(2), &[]).unwrap();
        let file = w.into_inner().unwrap();
        assert_eq!(file.len(), 24 + 16 + 3 + 16);
        let mut r = PcapReader::new(&file[..]).unwrap();
        assert_eq!(r.linktype, LINKTYPE_ETHERNET);
        assert_eq!(r.read().unwrap(), Some((Duration::from_millis(1500), vec![1, 2, 3])));
        assert_eq!(r.read().unwrap(), Some((Duration::from_secs(2), vec![])));
        assert_eq!(r.read().unwrap(), None);
    }

    #[test]
    fn broken_files() {
        assert!(PcapReader::new(&[0u8; 24][..]).is_err());
        assert!(PcapReader::new(&[0u8; 3][..]).is_err());
        let mut file = PcapWriter::new(Vec::new()).unwrap().into_inner().unwrap();
        file.extend_from_slice(&[0xff; 16]);
        assert!(PcapReader::new(&file[..]).unwrap().read().is_err());
        file.truncate(30);
        assert!(PcapReader::new(&file[..]).unwrap().read().is_err());
    }
}
