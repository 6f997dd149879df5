//! Long replies, a message at a time.
//!
//! Entries are encoded a few hundred at a time, so that memory beyond the bytes to send stays small however many there
//! are. A listing of flows ([`FlowListing`]) moreover stays with its connection and goes on whenever the peer has
//! taken what it was sent: a million flows delay nobody else and do not wait as bytes. What the peer asks meanwhile
//! is answered after it.

use std::sync::Arc;

use ib_base::time::Instant;
use ib_openflow::encode::{EncodeOptions, encode_reply};
use ib_openflow::message::{MultipartBody, Version};

use super::Cx;
use super::stats::flow_stats;
use crate::connmgr::conn::Conn;
use crate::rule::Rule;

/// Entries encoded at first, and at most, at once: as many decoded ones as a near cache holds.
const FIRST_CHUNK: usize = 4;
const MAX_CHUNK: usize = 32;
/// Bytes that a listing of flows makes before others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// How a reply is written: in the form of its request.
#[derive(Clone, Copy)]
pub(super) struct Form {
    version: Version,
    xid: u32,
    options: EncodeOptions,
}

impl Form {
    pub fn of(cx: &Cx<'_>) -> Form {
        let options = EncodeOptions { nxm: cx.name.starts_with("NXST_"), table_id: true };
        Form { version: cx.version(), xid: cx.xid, options }
    }
    pub fn encode(self, body: MultipartBody) -> Vec<Vec<u8>> {
        encode_reply(body, self.version, self.xid, self.options)
    }
}

/// Makes messages that are as full as their limit allows, all but the last marked "more".
struct Packer {
    form: Form,
    /// The message that is not known to be the last one or not.
    held: Option<Vec<u8>>,
    /// Entries that should fill a message.
    chunk: usize,
}

impl Packer {
    fn new(form: Form) -> Packer {
        Packer { form, held: None, chunk: FIRST_CHUNK }
    }

    /// Sends entries from the front of `items`. Returns the rest, and how many bytes that made.
    fn pack<'a, T, U>(
        &mut self,
        items: &'a [T],
        entry: impl Fn(&T) -> U,
        body: impl Fn(Vec<U>) -> MultipartBody,
        conn: &mut Conn,
    ) -> (&'a [T], usize) {
        let (chunk, rest) = items.split_at(self.chunk.min(items.len()));
        let parts = self.form.encode(body(chunk.iter().map(entry).collect()));
        let bytes: usize = parts.iter().map(Vec::len).sum();
        self.chunk = (self.chunk * usize::from(u16::MAX) / bytes.max(1)).clamp(1, MAX_CHUNK);
        for part in parts {
            self.push(part, conn);
        }
        (rest, bytes)
    }

    /// Puts bodies of consecutive parts together.
    fn push(&mut self, part: Vec<u8>, conn: &mut Conn) {
        let Some(mut held) = self.held.take() else {
            self.held = Some(part);
            return;
        };
        let head = header_len(&part);
        if held.len() + part.len() - head <= usize::from(u16::MAX) {
            held.extend_from_slice(&part[head..]);
            if let Ok(len) = u16::try_from(held.len()) {
                held[2..4].copy_from_slice(&len.to_be_bytes());
            }
            self.held = Some(held);
        } else {
            // OFPMPF_REPLY_MORE.
            held[10..12].copy_from_slice(&1u16.to_be_bytes());
            conn.send_bytes(held);
            self.held = Some(part);
        }
    }

    fn finish(&mut self, conn: &mut Conn) {
        if let Some(last) = self.held.take() {
            conn.send_bytes(last);
        }
    }
}

/// Bytes before the first entry.
fn header_len(part: &[u8]) -> usize {
    let v10 = part[0] == 1;
    let vendor = part[8..10] == [0xff, 0xff];
    match (v10, vendor) {
        (true, false) => 12,
        (true, true) | (false, true) => 24,
        (false, false) => 16,
    }
}

/// Sends a whole list.
pub(super) fn list<T, U>(
    cx: &mut Cx<'_>,
    items: &[T],
    entry: impl Fn(&T) -> U,
    body: impl Fn(Vec<U>) -> MultipartBody,
) {
    let mut packer = Packer::new(Form::of(cx));
    let mut rest = items;
    loop {
        (rest, _) = packer.pack(rest, &entry, &body, cx.conn);
        if rest.is_empty() {
            break;
        }
    }
    packer.finish(cx.conn);
}

/// Flows on their way to a peer, as they were when it asked.
pub(crate) struct FlowListing {
    rules: Vec<Arc<Rule>>,
    done: usize,
    /// Under which options of tunnels are named.
    tlv: u32,
    packer: Packer,
}

impl FlowListing {
    pub(super) fn new(cx: &Cx<'_>, rules: Vec<Arc<Rule>>) -> FlowListing {
        FlowListing { rules, done: 0, tlv: cx.bridge.connmgr.tlv_id(), packer: Packer::new(Form::of(cx)) }
    }

    /// Sends as much as one turn allows. Returns whether that was all.
    pub fn go_on(&mut self, conn: &mut Conn, now: Instant) -> bool {
        let mut made = 0;
        while made < TURN_BYTES {
            let entry = |rule: &Arc<Rule>| flow_stats(rule, self.tlv, now);
            let items = &self.rules[self.done..];
            let (rest, bytes) = self.packer.pack(items, entry, MultipartBody::Flow, conn);
            self.done = self.rules.len() - rest.len();
            made += bytes;
            if rest.is_empty() {
                self.packer.finish(conn);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_after_their_headers() {
        assert_eq!(header_len(&[1, 17, 0, 12, 0, 0, 0, 1, 0, 1, 0, 0]), 12);
        assert_eq!(header_len(&[1, 17, 0, 24, 0, 0, 0, 1, 0xff, 0xff, 0, 0]), 24);
        assert_eq!(header_len(&[4, 19, 0, 16, 0, 0, 0, 1, 0, 1, 0, 0]), 16);
    }
}
