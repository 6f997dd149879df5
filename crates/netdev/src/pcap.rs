//! Capture files that a dummy appends to, written through after each packet.

use std::fs::{File, OpenOptions};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use ib_packet::pcap::PcapWriter;

/// An open capture file.
pub struct PcapFile(PcapWriter<File>);

impl PcapFile {
    /// Opens `path` to append to; an empty or new file gets the header.
    pub fn append(path: &str) -> io::Result<PcapFile> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let is_new = file.metadata()?.len() == 0;
        Ok(PcapFile(if is_new { PcapWriter::new(file)? } else { PcapWriter::append(file) }))
    }

    /// Appends one frame. A full disk loses the frame, not the device.
    pub fn write(&mut self, frame: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let _ = self.0.write(now, frame);
    }
}
