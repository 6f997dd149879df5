//! Records: a line with magic word, length and SHA-1, and behind it a line of JSON.
//!
//! ```text
//! OVSDB JSON 132 b6b809168873f035d4f239538c9aec8aa69ef2e4
//! {"_date":1795384278968,"D":{"56276533-...":{"name":"q","k2":1}}}
//! ```
//!
//! Length and sum include the line feed at the end. What a record claims to be long costs no memory beyond what the file has.

use super::disk::{DiskFile, read_full};
use crate::error::{Error, Result};
use ib_base::json::Json;
use ib_base::json::write_integer;
use sha1::{Digest, Sha1};
use std::io;
use std::sync::Arc;

/// The magic word of standalone databases.
pub const MAGIC: &str = "JSON";
/// The magic word of members of a cluster.
pub const CLUSTER_MAGIC: &str = "CLUSTER";
/// A record may have at most this many bytes.
const MAX_RECORD: u64 = 4 << 30;
/// A header line may have at most this many bytes.
pub(super) const MAX_HEADER: usize = 128;
/// Small records are read this many bytes at a time.
const READ_AHEAD: usize = 1 << 18;
/// Records from this size on are summed by another thread while they are read.
const LARGE_RECORD: usize = 4 << 20;
/// In pieces of this size.
const PIECE: usize = 1 << 20;

/// One record: where it began and what it says.
pub struct Record {
    /// Offset of its header.
    pub offset: u64,
    /// Its content.
    pub json: Json,
}

/// One record, whose checksum is right, not parsed yet.
pub struct TextRecord {
    /// Offset of its header.
    pub offset: u64,
    /// Offset of its content.
    pub data_offset: u64,
    /// Its content.
    pub data: Vec<u8>,
}

/// A SHA-1.
type Sum = sha1::digest::Output<Sha1>;

/// Reads a file's records from its beginning.
pub(super) struct Reader {
    file: Arc<dyn DiskFile>,
    /// Where the next byte that is not in `buf` is.
    next: u64,
    buf: Vec<u8>,
    /// How much of `buf` is used up.
    used: usize,
    /// The size of the file: a record cannot have more, whatever it says.
    limit: u64,
}

impl Reader {
    pub(super) fn new(file: Arc<dyn DiskFile>, size: u64) -> Reader {
        Reader { file, next: 0, buf: Vec::new(), used: 0, limit: size }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        if self.used == self.buf.len() {
            let left = usize::try_from(self.limit.saturating_sub(self.next)).unwrap_or(READ_AHEAD);
            let mut buf = vec![0; left.min(READ_AHEAD)];
            let n = read_full(&*self.file, &mut buf, self.next)?;
            buf.truncate(n);
            self.buf = buf;
            self.used = 0;
            self.next += n as u64;
        }
        let byte = self.buf.get(self.used).copied();
        self.used += usize::from(byte.is_some());
        Ok(byte)
    }

    /// Up to `length` bytes, less at the end of the file, and their sum.
    fn bytes(&mut self, length: u64) -> io::Result<(Vec<u8>, Sum)> {
        let buffered = &self.buf[self.used..];
        let from_buffer = usize::try_from(length).unwrap_or(usize::MAX).min(buffered.len());
        let rest = (length - from_buffer as u64).min(self.limit.saturating_sub(self.next));
        let rest = usize::try_from(rest).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // Zeroed memory comes from the system as such, without a pass over it.
        let mut data = vec![0; from_buffer + rest];
        data[..from_buffer].copy_from_slice(&buffered[..from_buffer]);
        self.used += from_buffer;
        let (n, sum) = if rest < LARGE_RECORD {
            let n = read_full(&*self.file, &mut data[from_buffer..], self.next)?;
            (n, Sha1::digest(&data[..from_buffer + n]))
        } else {
            self.read_large(&mut data, from_buffer)?
        };
        data.truncate(from_buffer + n);
        self.next += n as u64;
        Ok((data, sum))
    }

    /// Fills `data` from `from` on, and sums it up, at the same time.
    fn read_large(&self, data: &mut [u8], from: usize) -> io::Result<(usize, Sum)> {
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<&[u8]>();
            let summing = scope.spawn(move || {
                let mut hasher = Sha1::new();
                receive.into_iter().for_each(|piece| hasher.update(piece));
                hasher.finalize()
            });
            let (first, mut rest) = data.split_at_mut(from);
            // The other end lives until this one is dropped.
            let _ = send.send(first);
            let mut read = 0;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at_mut(PIECE.min(rest.len()));
                rest = behind;
                let n = read_full(&*self.file, piece, self.next + read as u64)?;
                read += n;
                let whole = n == piece.len();
                let _ = send.send(&piece[..n]);
                if !whole {
                    break;
                }
            }
            drop(send);
            let sum = summing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((read, sum))
        })
    }

    /// The record that begins at `offset`, up to which all was read; none at the end of the file. `name` is the file's.
    pub(super) fn record(&mut self, name: &str, offset: u64) -> Result<Option<TextRecord>> {
        let mut line = Vec::new();
        loop {
            match self.byte() {
                Ok(None) if line.is_empty() => return Ok(None),
                Ok(None | Some(b'\n')) => break,
                Ok(Some(_)) if line.len() >= MAX_HEADER => break,
                Ok(Some(byte)) => line.push(byte),
                Err(e) => return Err(Error::io(&e, format!("{name}: read failed"))),
            }
        }
        let Some((length, sha1)) = parse_header(&line) else {
            let shown = String::from_utf8_lossy(&line);
            // Like the original, show a header that is cut short only as far as it is one.
            let shown = if shown.starts_with("OVSDB JSON") { "OVSDB JSON" } else { &shown };
            let message = format!("{name}: parse error at offset {offset} in header line \"{shown}\"");
            return Err(Error::syntax_plain(message));
        };
        let data_offset = offset + line.len() as u64 + 1;
        let where_ = || format!("{name}: error reading {length} bytes starting at offset {data_offset}");
        let (data, sum) = self.bytes(length).map_err(|e| Error::io(&e, where_()))?;
        if (data.len() as u64) < length {
            return Err(Error::io_eof(where_()));
        }
        let actual = hex(&sum);
        if actual.as_bytes() != sha1 {
            return Err(Error::syntax_plain(format!(
                "{name}: {length} bytes starting at offset {data_offset} have SHA-1 hash {actual} but should have hash {}",
                String::from_utf8_lossy(&sha1)
            )));
        }
        Ok(Some(TextRecord { offset, data_offset, data }))
    }
}

fn parse_header(line: &[u8]) -> Option<(u64, Vec<u8>)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.strip_prefix("OVSDB ")?.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
    let length: u64 = words.next()?.parse().ok()?;
    let sha1 = words.next()?.as_bytes();
    let valid =
        length > 0 && length < MAX_RECORD && sha1.len() == 40 && sha1.iter().all(u8::is_ascii_hexdigit);
    (valid && words.next().is_none()).then(|| (length, sha1.to_ascii_lowercase()))
}

fn hex(digest: &[u8]) -> String {
    let mut out = String::with_capacity(2 * digest.len());
    for byte in digest {
        out.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    out
}

/// The header line of a record.
pub(super) fn header(magic: &str, record: &str) -> String {
    let mut hasher = Sha1::new();
    hasher.update(record.as_bytes());
    hasher.update(b"\n");
    let mut out = String::with_capacity(MAX_HEADER);
    out.push_str("OVSDB ");
    out.push_str(magic);
    out.push(' ');
    write_integer(&mut out, i64::try_from(record.len()).unwrap_or(i64::MAX).saturating_add(1));
    out.push(' ');
    out.push_str(&hex(&hasher.finalize()));
    out.push('\n');
    out
}

/// The bytes of a record: header line, content, line feed.
pub fn frame(magic: &str, record: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_HEADER + record.len());
    frame_into(magic, record, &mut out);
    out
}

/// Appends what [`frame`] makes.
pub(super) fn frame_into(magic: &str, record: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(header(magic, record).as_bytes());
    out.extend_from_slice(record.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_the_original_does() {
        let record = r#"{"_date":1795384296259,"M":{"862597bd-0eb9-4b35-8606-529eac4f2742":{"name":"m2"}},"_is_diff":true}"#;
        let expect = format!("OVSDB JSON 99 86ec74be6133b02f30d8f3dd46435b212ab7b0f6\n{record}\n");
        assert_eq!(frame(MAGIC, record), expect.as_bytes());
    }
}
