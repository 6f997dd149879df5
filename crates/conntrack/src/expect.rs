//! Connections that others announce: expectations, and the control packets of helpers that make them.
//!
//! A control packet of FTP or TFTP names the address and port of a connection to come. That becomes an [`Expectation`], under the
//! tuple that its first packet will have but for the source port. A packet that has no connection and meets an expectation
//! begins a related one: with mark and label of its parent, and translated the way that the parent is. An expectation lives as long as
//! its parent. The addresses in a translated FTP connection's text are translated too; when that changes the text's length,
//! the numbers of later segments and of their acknowledgements are moved along ([`Skew`]).
//!
//! The tracker itself counts in the numbers of the end that sends: acknowledgements are moved back before it looks, sequence
//! numbers moved on after it has.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use ib_dpif::ct_saved::{CtExpected, CtSkew};
use ib_packet::{Be128, Packet};

use crate::ftp::{self, Announcement};
use crate::key::{Key, Parsed};
use crate::nat::Translated;
use crate::rewrite;
use crate::table::{Conn, Conntrack, Entry, Helper, State};

/// Most expectations of one connection, and of all.
const MAX_OF_PARENT: usize = 64;
const MAX_ALL: usize = 65_536;
/// TFTP requests (RFC 1350, 5): read, write.
const TFTP_REQUESTS: [[u8; 2]; 2] = [[0, 1], [0, 2]];

/// What is known of an expected connection before it begins: all but its source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExpectedKey {
    src: Be128,
    dst: Be128,
    dport: u16,
    zone: u16,
    proto: u8,
    v6: bool,
}

impl ExpectedKey {
    fn of(key: &Key) -> ExpectedKey {
        let Key { src, dst, dport, zone, proto, v6, .. } = *key;
        ExpectedKey { src, dst, dport, zone, proto, v6 }
    }
}

/// What a connection that another announced is like.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Original direction of the connection that announced it.
    pub parent: Key,
    /// Mark of the parent.
    pub mark: u32,
    /// Label of the parent.
    pub label: u128,
    /// Which of its ends is translated, if translation is asked for.
    pub translated: Translated,
    /// What that end becomes.
    addr: Be128,
    port: Option<u16>,
}

impl Expectation {
    /// The reply direction for a connection that begins with `orig`.
    pub fn reply(&self, orig: &Key) -> Key {
        let mut reply = orig.reversed();
        match self.translated {
            Translated::Neither => {}
            Translated::Source => reply.dst = self.addr,
            Translated::Destination => {
                reply.src = self.addr;
                reply.sport = self.port.unwrap_or(reply.sport);
            }
        }
        reply
    }
}

/// How far the sequence numbers of one direction have been moved: `before` up to `at`, `after` behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    at: u32,
    before: i32,
    after: i32,
}

impl Skew {
    fn sent(&self, seq: u32) -> u32 {
        let behind = seq.wrapping_sub(self.at) as i32 > 0;
        seq.wrapping_add_signed(if behind { self.after } else { self.before })
    }
    fn acked(&self, ack: u32) -> u32 {
        let behind = ack.wrapping_add_signed(-self.before).wrapping_sub(self.at) as i32 > 0;
        ack.wrapping_add_signed(-(if behind { self.after } else { self.before }))
    }
    /// The segment at `seq` has become longer by `by`; if it is one sent again, that is known.
    fn grow(&mut self, seq: u32, by: i32) {
        if self.before == self.after || seq.wrapping_sub(self.at) as i32 > 0 {
            (self.at, self.before) = (seq, self.after);
            self.after = self.after.wrapping_add(by);
        }
    }
    fn is_none(&self) -> bool {
        self.before == 0 && self.after == 0
    }
    fn saved(&self) -> CtSkew {
        CtSkew { at: self.at, before: self.before, after: self.after }
    }
    fn restored(s: &CtSkew) -> Skew {
        Skew { at: s.at, before: s.before, after: s.after }
    }
}

/// What a connection with a helper has beside its state.
#[derive(Default)]
pub struct Alg {
    /// By direction: original, reply.
    skew: [Skew; 2],
    /// What it announced.
    expects: Vec<ExpectedKey>,
}

fn address(a: Be128, v6: bool) -> IpAddr {
    if v6 {
        std::net::Ipv6Addr::from(a.get()).into()
    } else {
        std::net::Ipv4Addr::from(a.get() as u32).into()
    }
}

pub(crate) fn raw(a: IpAddr) -> Be128 {
    match a {
        IpAddr::V4(a) => Be128::new(u32::from(a).into()),
        IpAddr::V6(a) => Be128::new(a.into()),
    }
}

impl Conntrack {
    /// What a packet without a connection is expected as.
    pub(crate) fn expected(&self, key: &Key) -> Option<Expectation> {
        if self.expecting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.expectations.read().get(&ExpectedKey::of(key)).cloned()
    }

    /// All expectations (of a zone), by their tuples without source port, in a stable order.
    pub(crate) fn expected_all(&self, zone: Option<u16>) -> Vec<(Key, Expectation)> {
        let all = self.expectations.read();
        let key = |k: &ExpectedKey| {
            let ExpectedKey { src, dst, dport, zone, proto, v6 } = *k;
            Key { src, dst, sport: 0, dport, id: 0, zone, proto, v6 }
        };
        let wanted = all.iter().filter(|(k, _)| zone.is_none_or(|z| z == k.zone));
        let mut out: Vec<_> = wanted.map(|(k, x)| (key(k), x.clone())).collect();
        out.sort_by_key(|(k, _)| (k.zone, k.dport, k.src.get(), k.dst.get()));
        out
    }

    /// Ends what a connection announced; with the connection's lock held.
    pub(crate) fn forget_expected(&self, conn: &Conn, state: &mut State) {
        let Some(alg) = state.alg.take() else { return };
        let mut all = self.expectations.write();
        for key in &alg.expects {
            if all.get(key).is_some_and(|x| x.parent == conn.orig) {
                all.remove(key);
            }
        }
        self.expecting.store(all.len(), Ordering::Relaxed);
    }

    /// What a helper's connection takes along to another table: skews and announcements. With its lock held.
    pub(crate) fn save_alg(&self, state: &State) -> ([CtSkew; 2], Vec<CtExpected>) {
        let Some(alg) = &state.alg else { return Default::default() };
        let all = self.expectations.read();
        let expected = alg.expects.iter().filter_map(|key| {
            let x = all.get(key)?;
            Some(CtExpected {
                src: address(key.src, key.v6),
                dst: address(key.dst, key.v6),
                proto: key.proto,
                dport: key.dport,
                nat: x.translated.saved(),
                addr: address(x.addr, key.v6),
                port: x.port,
            })
        });
        (alg.skew.map(|s| s.saved()), expected.collect())
    }

    /// What it brought from another table. With its lock held.
    pub(crate) fn restore_alg(&self, conn: &Conn, state: &mut State, skew: &[CtSkew; 2], x: &[CtExpected]) {
        if *skew != [CtSkew::default(); 2] {
            state.alg.get_or_insert_default().skew = [Skew::restored(&skew[0]), Skew::restored(&skew[1])];
        }
        for x in x {
            let key = ExpectedKey {
                src: raw(x.src),
                dst: raw(x.dst),
                dport: x.dport,
                zone: conn.orig.zone,
                proto: x.proto,
                v6: conn.orig.v6,
            };
            self.expect(conn, state, key, (Translated::restored(x.nat), raw(x.addr), x.port));
        }
    }

    fn expect(
        &self,
        conn: &Conn,
        state: &mut State,
        key: ExpectedKey,
        like: (Translated, Be128, Option<u16>),
    ) {
        let alg = state.alg.get_or_insert_default();
        let mut all = self.expectations.write();
        if all.contains_key(&key) || all.len() >= MAX_ALL {
            return;
        }
        if alg.expects.len() >= MAX_OF_PARENT {
            all.remove(&alg.expects.remove(0));
        }
        alg.expects.push(key);
        let (translated, addr, port) = like;
        let (mark, label) = (state.mark, state.label);
        all.insert(key, Expectation { parent: conn.orig, mark, label, translated, addr, port });
        self.expecting.store(all.len(), Ordering::Relaxed);
    }

    /// Announces a connection from the other end to a port of the end that speaks: as the other end will call it, and what it is.
    fn announce(&self, e: &Entry, state: &mut State, (said, real): (u16, u16)) {
        let conn = &e.conn;
        // The first packet of it, as the table's user will see it.
        let (seen, hidden) = if e.reply { (&conn.orig, &conn.reply) } else { (&conn.reply, &conn.orig) };
        let key = ExpectedKey { dport: said, ..ExpectedKey::of(seen) };
        // What is translated of the parent is of this one, as seen from who begins it.
        let like = match (conn.translated, e.reply) {
            (Translated::Source, true) => (Translated::Source, conn.reply.dst, None),
            (Translated::Destination, false) => (Translated::Source, conn.orig.dst, None),
            (Translated::Neither, true) => (Translated::Source, seen.src, None),
            (_, _) => (Translated::Destination, hidden.src, Some(real)),
        };
        self.expect(conn, state, key, like);
    }

    /// Makes the acknowledgement of a translated segment one that its peer's tracker knows; before the state advances.
    pub(crate) fn unskew_ack(&self, packet: &mut Packet, parsed: &mut Parsed, e: &Entry) {
        let state = e.conn.state.lock();
        let Some(skew) = state.alg.as_ref().map(|a| a.skew[usize::from(!e.reply)]).filter(|s| !s.is_none())
        else {
            return;
        };
        if parsed.inner.is_none()
            && parsed.key.proto == 6
            && parsed.segment.flags & ib_packet::wire::tcp::ACK != 0
        {
            parsed.segment.ack = skew.acked(parsed.segment.ack);
            rewrite::set_word(packet, &parsed.at, 8, parsed.segment.ack);
        }
    }

    /// Reads a packet of a connection with a helper, after translation; `nat` tells if there was one. False: it lies about who it is.
    pub(crate) fn control_packet(&self, packet: &mut Packet, parsed: &Parsed, e: &Entry, nat: bool) -> bool {
        if parsed.inner.is_some() {
            return true;
        }
        let mut state = e.conn.state.lock();
        if state.dead {
            return true;
        }
        match (e.conn.helper, parsed.key.proto) {
            (Some(Helper::Tftp), 17) => {
                let payload = packet.data().get(parsed.at.l4 + 8..parsed.at.end);
                let request = payload.and_then(<[u8]>::first_chunk::<2>);
                if !e.reply && request.is_some_and(|r| TFTP_REQUESTS.contains(r)) {
                    self.announce(e, &mut state, (e.conn.reply.dport, e.conn.orig.sport));
                }
                true
            }
            (Some(Helper::Ftp), 6) => self.ftp_segment(packet, parsed, e, &mut state, nat),
            _ => true,
        }
    }

    fn ftp_segment(
        &self,
        packet: &mut Packet,
        parsed: &Parsed,
        e: &Entry,
        state: &mut State,
        nat: bool,
    ) -> bool {
        let at = parsed.at;
        let start = at.end - usize::try_from(parsed.segment.len).unwrap_or(0).min(at.end - at.l4);
        let conn = &e.conn;
        let text = packet.data().get(start..at.end).unwrap_or_default();
        if ftp::is_garbled(text, e.reply, conn.orig.v6) {
            return false;
        }
        let said = ftp::find(text, e.reply);
        let mut growth = 0;
        if let Some(said) = &said {
            let (own, shown) =
                if said.passive { (conn.reply.src, conn.orig.dst) } else { (conn.orig.src, conn.reply.dst) };
            if let Some((addr, _)) = &said.address
                && (raw(*addr) != own || addr.is_ipv6() != conn.orig.v6)
            {
                // A server that is told to connect to somebody else's host: the bounce attack (RFC 2577, 3).
                return false;
            }
            self.announce(e, state, (said.port, said.port));
            if let Some((_, range)) = said.address.as_ref().filter(|_| nat && own != shown) {
                let extended = packet.data().get(start).is_some_and(|b| b.eq_ignore_ascii_case(&b'E'));
                let text = Announcement::text(address(shown, conn.orig.v6), extended);
                growth = text.len() as i32 - range.len() as i32;
                rewrite::splice(packet, &at, start + range.start..start + range.end, text.as_bytes());
            }
        }
        let Some(alg) = state.alg.as_mut().filter(|_| nat) else { return true };
        let skew = &mut alg.skew[usize::from(e.reply)];
        let seq = parsed.segment.seq;
        if growth != 0 {
            skew.grow(seq, growth);
        }
        if !skew.is_none() {
            rewrite::set_word(packet, &at, 4, skew.sent(seq));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_move_behind_the_change_only() {
        let mut s = Skew::default();
        assert!(s.is_none());
        s.grow(100, 3);
        assert_eq!((s.sent(100), s.sent(101), s.sent(130)), (100, 104, 133));
        assert_eq!((s.acked(100), s.acked(133), s.acked(104)), (100, 130, 101));
        // Sent again.
        s.grow(100, 3);
        assert_eq!(s.sent(130), 133);
        s.grow(200, -1);
        assert_eq!((s.sent(200), s.sent(220)), (203, 222));
        assert_eq!((s.acked(203), s.acked(222)), (200, 220));
    }
}
