//! TCP's state as seen from the middle: two half-open windows and two states, after the method of stateful filters
//! (G. van Rooij, "Real Stateful TCP Packet Filtering", 2000).
//!
//! Each end keeps the next sequence number that it is to send (`lo`), the highest that the other end's window lets it
//! send (`hi`), and the largest window that it has offered. A segment is valid if it lies within, and its acknowledgement is near
//! what the other end has sent.

use ib_dpif::conntrack::TcpState;
use ib_dpif::ct_saved::CtPeer;
use ib_packet::wire::tcp::{ACK, FIN, PSH, RST, SYN, URG};

use crate::key::Segment;

/// How far an acknowledgement may lie from what was sent: the largest unscaled window and a segment.
const MAX_ACK_SKEW: i32 = 0xffff + 1500;
const MAX_WSCALE: u8 = 14;

/// One end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    lo: u32,
    hi: u32,
    max_win: u16,
    /// `None`: this end does not scale.
    pub wscale: Option<u8>,
    /// We saw no SYN of this end: whether it scales is unknown.
    pub unknown: bool,
    /// State.
    pub state: TcpState,
}

impl Peer {
    /// As it moves to another table.
    pub(crate) fn saved(&self) -> CtPeer {
        let Peer { lo, hi, max_win, wscale, unknown, state } = *self;
        CtPeer { lo, hi, max_win, wscale, unknown, state }
    }
    /// As it came from another table.
    pub(crate) fn restored(saved: &CtPeer) -> Peer {
        let CtPeer { lo, hi, max_win, wscale, unknown, state } = *saved;
        Peer { lo, hi, max_win, wscale, unknown, state }
    }
}

/// A connection: originator first.
pub type Peers = [Peer; 2];

/// What a segment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid.
    Established,
    /// Valid, for a connection that we did not see begin or that is over; its time goes on running.
    Near,
    /// Valid, but the connection is still to be answered.
    StillNew,
    /// Not of this connection.
    Invalid,
    /// The old connection is over; this begins another.
    Restart,
}

fn geq(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

fn invalid_flags(flags: u16) -> bool {
    let opening = if flags & SYN != 0 { flags & (RST | FIN) != 0 } else { flags & (ACK | RST) == 0 };
    opening || flags & ACK == 0 && flags & (FIN | PSH | URG) != 0
}

/// Whether a segment with these flags may begin a connection: a SYN, or one of a connection that is older than the table.
pub fn may_begin(flags: u16) -> bool {
    !invalid_flags(flags) && flags & (SYN | ACK) != SYN | ACK
}

/// The window of a SYN is not scaled, that of what follows is: keep it in units of the scale.
fn scaled_down(window: u16, scale: u8) -> u16 {
    u16::try_from(u32::from(window).div_ceil(1 << scale)).unwrap_or(u16::MAX)
}

/// The peers after the first segment.
pub fn begin(s: &Segment) -> Peers {
    let syn = s.flags & SYN != 0;
    let extra = u32::from(syn) + u32::from(s.flags & FIN != 0);
    let mut max_win = s.window.max(1);
    if let (true, Some(scale)) = (syn, s.wscale) {
        max_win = scaled_down(max_win, scale);
    }
    let first = Peer {
        lo: s.seq,
        hi: s.seq.wrapping_add(s.len).wrapping_add(1 + extra),
        max_win,
        wscale: s.wscale.filter(|_| syn),
        unknown: !syn,
        state: TcpState::SynSent,
    };
    let second = Peer { lo: 0, hi: 1, max_win: 1, wscale: None, unknown: !syn, state: TcpState::Closed };
    [first, second]
}

/// Takes a segment; `reply` tells whether it comes from the second end. With `check` false, numbers do not matter.
pub fn update(peers: &mut Peers, s: &Segment, reply: bool, check: bool) -> Verdict {
    if invalid_flags(s.flags) {
        return Verdict::Invalid;
    }
    let (mut src, mut dst) = if reply { (peers[1], peers[0]) } else { (peers[0], peers[1]) };
    let syn = s.flags & SYN != 0;
    if s.flags & (SYN | ACK) == SYN {
        if dst.state >= TcpState::FinWait2 && src.state >= TcpState::FinWait2 {
            peers[0].state = TcpState::Closed;
            peers[1].state = TcpState::Closed;
            return Verdict::Restart;
        }
        if src.state <= TcpState::SynSent {
            // Sent again, or by both ends at once.
            src.state = TcpState::SynSent;
            *peers = if reply { [dst, src] } else { [src, dst] };
            return Verdict::StillNew;
        }
    }
    let verdict = step(&mut src, &mut dst, s, syn, check);
    if verdict != Verdict::Invalid {
        *peers = if reply { [dst, src] } else { [src, dst] };
    }
    verdict
}

fn step(src: &mut Peer, dst: &mut Peer, s: &Segment, syn: bool, check: bool) -> Verdict {
    let fin = s.flags & FIN != 0;
    let (mut sws, mut dws) = match (src.wscale, dst.wscale) {
        _ if syn => (0, 0),
        (Some(a), Some(b)) => (a, b),
        _ if src.unknown && dst.unknown => (MAX_WSCALE, MAX_WSCALE),
        _ => (0, 0),
    };
    let (mut seq, mut ack, mut window) = (s.seq, s.ack, s.window);
    let mut end = seq.wrapping_add(s.len).wrapping_add(u32::from(syn) + u32::from(fin));
    let mut check_skew = true;
    if src.state < TcpState::SynSent {
        // The first that this end says.
        if syn && let Some(theirs) = dst.wscale {
            src.wscale = s.wscale;
            if let Some(scale) = s.wscale {
                (sws, dws) = (scale, theirs);
                window = scaled_down(window, scale);
            } else {
                // It does not scale, so what the other end offered was in bytes.
                dst.max_win <<= theirs;
                dst.wscale = None;
            }
        }
        src.lo = seq;
        src.state = TcpState::SynSent;
        let hi = end.wrapping_add((u32::from(dst.max_win) << dws).max(1));
        if src.hi == 1 || geq(hi, src.hi) {
            src.hi = hi;
            check_skew = false;
        }
        src.max_win = src.max_win.max(window);
    }
    if s.flags & ACK == 0 || ack == 0 && s.flags & (ACK | RST) == ACK | RST {
        ack = dst.lo;
    }
    if seq == end {
        // Nothing to place: pure acknowledgements, resets and probes come with odd numbers.
        seq = src.lo;
        end = seq;
    }
    let dst_window = u32::from(dst.max_win) << dws;
    let skew = if check_skew { dst.lo.wrapping_sub(ack) as i32 } else { 0 };
    let max_skew = i64::from(MAX_ACK_SKEW) << sws;
    let reset_fits = s.flags & RST == 0 || (s.seq.wrapping_sub(src.lo) as i32).unsigned_abs() <= 1;
    let inside = geq(src.hi, end)
        && geq(seq, src.lo.wrapping_sub(dst_window))
        && skew >= -MAX_ACK_SKEW
        && i64::from(skew) <= max_skew
        && reset_fits;
    let slack = MAX_ACK_SKEW as u32;
    let near =
        (dst.state < TcpState::SynSent || dst.state >= TcpState::FinWait2 || src.state >= TcpState::FinWait2)
            && geq(src.hi.wrapping_add(slack), end)
            && geq(seq, src.lo.wrapping_sub(slack));
    if check && !inside && !near {
        return Verdict::Invalid;
    }
    let inside = inside || !check;
    src.max_win = src.max_win.max(window);
    if geq(end, src.lo) {
        src.lo = end;
    }
    let offered = u32::from(window) << sws;
    if geq(ack.wrapping_add(offered), dst.hi) {
        dst.hi = ack.wrapping_add(offered.max(1));
    }
    if fin && src.state < TcpState::Closing {
        src.state = TcpState::Closing;
    }
    if inside && s.flags & ACK != 0 {
        match dst.state {
            TcpState::SynSent => dst.state = TcpState::Established,
            TcpState::Closing => dst.state = TcpState::FinWait2,
            _ => {}
        }
    }
    if s.flags & RST != 0 {
        src.state = TcpState::TimeWait;
        dst.state = TcpState::TimeWait;
    }
    if inside { Verdict::Established } else { Verdict::Near }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seg(flags: u16, seq: u32, ack: u32, len: u32) -> Segment {
        Segment { flags, seq, ack, window: 1000, len, wscale: None }
    }

    #[test]
    fn a_life() {
        let mut p = begin(&seg(SYN, 100, 0, 0));
        assert_eq!(update(&mut p, &seg(SYN | ACK, 500, 101, 0), true, true), Verdict::Established);
        assert_eq!(p[0].state, TcpState::Established);
        assert_eq!(update(&mut p, &seg(ACK, 101, 501, 0), false, true), Verdict::Established);
        assert_eq!(p[1].state, TcpState::Established);
        assert_eq!(update(&mut p, &seg(ACK | PSH, 101, 501, 900), false, true), Verdict::Established);
        assert_eq!(update(&mut p, &seg(ACK, 900_101, 501, 900), false, true), Verdict::Invalid);
        assert_eq!(update(&mut p, &seg(ACK, 501, 1001, 10), true, true), Verdict::Established);
        assert_eq!(update(&mut p, &seg(RST, 9_999, 0, 0), true, true), Verdict::Invalid);
        assert_eq!(update(&mut p, &seg(FIN | ACK, 511, 1001, 0), true, true), Verdict::Established);
        assert_eq!(p[1].state, TcpState::Closing);
        assert_eq!(update(&mut p, &seg(FIN | ACK, 1001, 512, 0), false, true), Verdict::Established);
        assert_eq!(update(&mut p, &seg(ACK, 512, 1002, 0), true, true), Verdict::Established);
        assert_eq!((p[0].state, p[1].state), (TcpState::FinWait2, TcpState::FinWait2));
        assert_eq!(update(&mut p, &seg(SYN, 7, 0, 0), false, true), Verdict::Restart);
    }

    #[test]
    fn flags() {
        assert!(may_begin(SYN) && may_begin(ACK) && !may_begin(SYN | ACK));
        assert!(!may_begin(0) && !may_begin(SYN | FIN) && !may_begin(FIN));
    }

    #[test]
    fn without_checks_numbers_do_not_matter() {
        let mut p = begin(&seg(SYN, 100, 0, 0));
        assert_eq!(update(&mut p, &seg(SYN | ACK, 500, 101, 0), true, true), Verdict::Established);
        let far = seg(ACK, 900_000, 501, 10);
        assert_eq!(update(&mut p, &far, false, true), Verdict::Invalid);
        assert_eq!(update(&mut p, &far, false, false), Verdict::Established);
    }
}
