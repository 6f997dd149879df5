//! Reading and writing bytes in network order.
//!
//! [`Cursor`] never reads past its slice: running out is the error that the cursor was made with, so that each
//! structure reports the length error of its own kind. [`Buf`] appends; lengths are patched in once known.

use ib_packet::Mac;

use crate::error::OfError;

/// Reads from the front of a slice.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    short: OfError,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`; running out is `short`.
    pub fn new(bytes: &'a [u8], short: OfError) -> Cursor<'a> {
        Cursor { bytes, short }
    }
    /// Bytes left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// What is left, without taking it.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
    /// Takes all that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
    /// Takes `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], OfError> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or(self.short)?;
        self.bytes = tail;
        Ok(head)
    }
    /// Skips `n` bytes.
    pub fn skip(&mut self, n: usize) -> Result<(), OfError> {
        self.take(n).map(|_| ())
    }
    /// Takes `n` bytes that must be zero, else `error`.
    pub fn zeros(&mut self, n: usize, error: OfError) -> Result<(), OfError> {
        if self.take(n)?.iter().any(|b| *b != 0) { Err(error) } else { Ok(()) }
    }
    /// Takes an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], OfError> {
        let (head, tail) = self.bytes.split_first_chunk().ok_or(self.short)?;
        self.bytes = tail;
        Ok(*head)
    }
    /// Takes a byte.
    pub fn u8(&mut self) -> Result<u8, OfError> {
        self.array::<1>().map(|b| b[0])
    }
    /// Takes 16 bits.
    pub fn u16(&mut self) -> Result<u16, OfError> {
        self.array().map(u16::from_be_bytes)
    }
    /// Takes 32 bits.
    pub fn u32(&mut self) -> Result<u32, OfError> {
        self.array().map(u32::from_be_bytes)
    }
    /// Takes 64 bits.
    pub fn u64(&mut self) -> Result<u64, OfError> {
        self.array().map(u64::from_be_bytes)
    }
    /// Takes 128 bits.
    pub fn u128(&mut self) -> Result<u128, OfError> {
        self.array().map(u128::from_be_bytes)
    }
    /// Takes an Ethernet address.
    pub fn mac(&mut self) -> Result<Mac, OfError> {
        self.array().map(Mac)
    }
    /// Takes a string of `n` bytes, ended early by a zero byte.
    pub fn string(&mut self, n: usize) -> Result<String, OfError> {
        let bytes = self.take(n)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(n);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// Appends to a message.
#[derive(Default, Debug)]
pub struct Buf(pub Vec<u8>);

impl Buf {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Appends a byte.
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    /// Appends 16 bits.
    pub fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends 32 bits.
    pub fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends 64 bits.
    pub fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends 128 bits.
    pub fn u128(&mut self, v: u128) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends bytes.
    pub fn bytes(&mut self, v: &[u8]) {
        self.0.extend_from_slice(v);
    }
    /// Appends zeros.
    pub fn zeros(&mut self, n: usize) {
        self.0.resize(self.0.len() + n, 0);
    }
    /// Appends a string in a field of `n` bytes; it is cut so that a zero byte ends it.
    pub fn string(&mut self, s: &str, n: usize) {
        let len = s.len().min(n.saturating_sub(1));
        self.bytes(&s.as_bytes()[..len]);
        self.zeros(n - len);
    }
    /// Appends zeros until what began at `start` is a multiple of 8 long.
    pub fn pad8(&mut self, start: usize) {
        let over = (self.len() - start) % 8;
        if over != 0 {
            self.zeros(8 - over);
        }
    }
    /// Overwrites 16 bits at `at` with the length of what began at `start`; clamped, which callers that can
    /// exceed 64 kB must have refused before.
    pub fn patch_len(&mut self, at: usize, start: usize) {
        let len = u16::try_from(self.len() - start).unwrap_or(u16::MAX);
        self.patch_u16(at, len);
    }
    /// Overwrites 16 bits.
    pub fn patch_u16(&mut self, at: usize, v: u16) {
        self.0[at..at + 2].copy_from_slice(&v.to_be_bytes());
    }
}
