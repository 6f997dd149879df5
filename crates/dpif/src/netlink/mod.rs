//! Keys and actions as the netlink attributes of linux/openvswitch.h: the form in which they reach the kernel.
//!
//! Pure: bytes in, values out, and back. An attribute is a 16-bit length (its own four bytes included), a 16-bit type and data, in host
//! order, aligned to four bytes; nests hold attributes. [`Writer`] builds them, [`attributes`] walks them. What the kernel
//! says is checked like anything from outside: no input panics, depth is bounded by [`MAX_DEPTH`], and cost is linear in the
//! length of the input.
//!
//! The round trip holds for what the kernel knows. Keys have more in user space (packet types, extensions of neighbour discovery,
//! registers): that is left out, so a mask that looks at it must not be sent. Actions that only user space has are an error.

mod action;
mod key;
mod tunnel;

use std::fmt;

pub use action::{decode_actions, put_actions};
pub use key::{decode_key, put_key, put_mask};
pub use tunnel::decode_tunnel;

/// Nests in nests that are followed: deeper than the kernel executes, so that nothing of its own is refused.
pub const MAX_DEPTH: usize = 16;

/// Type bits: the two highest say "nested" and "network order".
const TYPE_MASK: u16 = 0x3fff;

/// Why something has no attributes, or attributes no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes are not what the kernel says of this attribute.
    Malformed(&'static str),
    /// The kernel's datapath, or this program, does not know that.
    Unsupported(&'static str),
    /// An attribute would be longer than 64 KiB.
    TooLong,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Malformed(what) => write!(f, "malformed {what} attribute"),
            CodecError::Unsupported(what) => write!(f, "{what}: not supported by the kernel's datapath"),
            CodecError::TooLong => f.write_str("attribute longer than 64 KiB"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Attributes being built. One that gets too long makes [`Writer::finish`] fail; nothing before that does.
#[derive(Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
    too_long: bool,
}

impl Writer {
    /// An empty one.
    pub fn new() -> Writer {
        Writer::default()
    }
    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, data: &[u8]) {
        self.put_parts(kind, &[data]);
    }
    /// Appends an attribute whose data is the parts in a row: a struct, or a value with its mask.
    pub fn put_parts(&mut self, kind: u16, parts: &[&[u8]]) {
        let at = self.open(kind);
        parts.iter().for_each(|p| self.buf.extend_from_slice(p));
        self.close(at);
    }
    /// Appends an attribute without data.
    pub fn flag(&mut self, kind: u16) {
        self.put(kind, &[]);
    }
    /// Appends a 16-bit number in host order.
    pub fn put_u16(&mut self, kind: u16, v: u16) {
        self.put(kind, &v.to_ne_bytes());
    }
    /// Appends a 32-bit number in host order.
    pub fn put_u32(&mut self, kind: u16, v: u32) {
        self.put(kind, &v.to_ne_bytes());
    }
    /// Appends a string and its terminator.
    pub fn put_text(&mut self, kind: u16, v: &str) {
        self.put_parts(kind, &[v.as_bytes(), &[0]]);
    }
    /// Appends an attribute that holds what `fill` appends.
    pub fn nest<T>(&mut self, kind: u16, fill: impl FnOnce(&mut Writer) -> T) -> T {
        let at = self.open(kind);
        let result = fill(self);
        self.close(at);
        result
    }
    fn open(&mut self, kind: u16) -> usize {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        at
    }
    fn close(&mut self, at: usize) {
        match u16::try_from(self.buf.len() - at) {
            Ok(len) => self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }
    /// The bytes.
    ///
    /// Errors: [`CodecError::TooLong`].
    pub fn finish(self) -> Result<Vec<u8>, CodecError> {
        if self.too_long { Err(CodecError::TooLong) } else { Ok(self.buf) }
    }
}

/// Walks attributes: type without its flag bits, and data. A length that lies is an error, and the last item.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), CodecError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut rest);
        let header: Option<[u8; 4]> = field(bytes, 0);
        let Some([l0, l1, k0, k1]) = header else { return Some(Err(CodecError::Malformed("netlink"))) };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(data) = bytes.get(4..len) else { return Some(Err(CodecError::Malformed("netlink"))) };
        rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, data)))
    })
}

/// `N` bytes at `at`, if they are there.
fn field<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// All of `data`, which must be a struct of `N` bytes.
fn whole<const N: usize>(data: &[u8], what: &'static str) -> Result<[u8; N], CodecError> {
    data.try_into().map_err(|_| CodecError::Malformed(what))
}

/// A 16-bit number in host order.
fn u16_of(data: &[u8], what: &'static str) -> Result<u16, CodecError> {
    whole(data, what).map(u16::from_ne_bytes)
}

/// A 32-bit number in host order.
fn u32_of(data: &[u8], what: &'static str) -> Result<u32, CodecError> {
    whole(data, what).map(u32::from_ne_bytes)
}

/// A string; its terminator may be missing.
fn text_of(data: &[u8], what: &'static str) -> Result<String, CodecError> {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    std::str::from_utf8(&data[..end]).map(str::to_owned).map_err(|_| CodecError::Malformed(what))
}

/// The kernel's connection label: two 64-bit words, the lower one first, each in host order.
fn label_bytes(label: ib_packet::Be128) -> [u8; 16] {
    let v = label.get();
    let (low, high) = (v & u128::from(u64::MAX), v >> 64);
    let mut out = [0; 16];
    for (half, v) in out.chunks_exact_mut(8).zip([low, high]) {
        half.copy_from_slice(&u64::try_from(v).unwrap_or(u64::MAX).to_ne_bytes());
    }
    out
}

fn label_of(bytes: [u8; 16]) -> ib_packet::Be128 {
    let word = |at| u128::from(u64::from_ne_bytes(field(&bytes, at).unwrap_or_default()));
    ib_packet::Be128::new(word(0) | word(8) << 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_nest() {
        let mut w = Writer::new();
        w.put(3, b"ab");
        w.nest(5, |w| w.put_u32(1, 9));
        let bytes = w.finish().unwrap();
        assert_eq!(bytes.len(), 8 + 12);
        let all: Vec<_> = attributes(&bytes).map(Result::unwrap).collect();
        assert_eq!(all[0], (3, &b"ab"[..]));
        assert_eq!(attributes(all[1].1).next(), Some(Ok((1, &9u32.to_ne_bytes()[..]))));
    }

    #[test]
    fn lengths_that_lie_are_errors_and_the_end() {
        for bad in [&[9u8, 0, 1, 0][..], &[3, 0, 1, 0], &[1], &[8, 0, 1, 0, 1, 2, 3]] {
            let all: Vec<_> = attributes(bad).collect();
            assert_eq!(all, [Err(CodecError::Malformed("netlink"))], "{bad:?}");
        }
    }

    #[test]
    fn what_does_not_fit_says_so() {
        let mut w = Writer::new();
        w.nest(1, |w| (0..3).for_each(|_| w.put(2, &[0; 30_000])));
        assert_eq!(w.finish(), Err(CodecError::TooLong));
    }
}
