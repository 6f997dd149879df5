//! Capture files that a dummy appends to: classic pcap, native byte order, flushed after each packet.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open capture file.
#[derive(Debug)]
pub struct PcapFile(File);

impl PcapFile {
    /// Opens `path` to append to; an empty or new file gets the header.
    pub fn append(path: &str) -> io::Result<PcapFile> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.metadata()?.len() == 0 {
            let mut header = Vec::with_capacity(24);
            header.extend(0xa1b2_c3d4_u32.to_ne_bytes());
            header.extend(2u16.to_ne_bytes());
            header.extend(4u16.to_ne_bytes());
            header.extend([0; 8]);
            header.extend(1518u32.to_ne_bytes());
            header.extend(1u32.to_ne_bytes());
            file.write_all(&header)?;
        }
        Ok(PcapFile(file))
    }

    /// Appends one frame. A full disk loses the frame, not the device.
    pub fn write(&mut self, frame: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(16 + frame.len());
        record.extend(u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_ne_bytes());
        record.extend(now.subsec_micros().to_ne_bytes());
        record.extend(len.to_ne_bytes());
        record.extend(len.to_ne_bytes());
        record.extend(frame);
        let _ = self.0.write_all(&record);
    }
}
