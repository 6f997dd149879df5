//! Connections that leave for another table, or come from one.
//!
//! What comes is input from outside: it is refused unless it makes sense here. A connection that is over already, one of a protocol that
//! says something else than its addresses do, or one too many changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_dpif::conntrack::CtTuple;
use ib_dpif::ct_saved::{CtProgress, CtSaved};
use parking_lot::Mutex;

use crate::control::tuple;
use crate::expect::raw;
use crate::key::Key;
use crate::nat::Translated;
use crate::table::{Conn, Conntrack, Helper, Proto, State, Talk};
use crate::tcp::Peer;
use crate::timeouts::DEFAULT_POLICY;

/// No connection is kept for longer without a packet, whoever says so.
const LONGEST_MS: u64 = 30 * 86_400_000;

fn key(t: &CtTuple, zone: u16) -> Key {
    Key {
        src: raw(t.src),
        dst: raw(t.dst),
        sport: t.sport,
        dport: t.dport,
        id: t.id,
        zone,
        proto: t.proto,
        v6: t.src.is_ipv6(),
    }
}

/// A talk's protocol: ICMP's answers and others' are told apart by their timeouts.
fn talk(key: &Key, n: u8) -> Proto {
    let talk = match n {
        0 => Talk::First,
        1 => Talk::Multiple,
        _ => Talk::Both,
    };
    match (key.proto, key.v6) {
        (1, false) | (58, true) => Proto::Icmp(talk),
        _ => Proto::Other(talk),
    }
}

impl Conntrack {
    /// A connection as it leaves.
    pub(crate) fn save_one(&self, conn: &Conn, now_ms: u64) -> CtSaved {
        let state = conn.state.lock();
        let (skew, expected) = self.save_alg(&state);
        CtSaved {
            orig: tuple(&conn.orig),
            reply: tuple(&conn.reply),
            zone: conn.orig.zone,
            mark: state.mark,
            label: state.label,
            left_ms: state.expires_ms.saturating_sub(now_ms),
            progress: match &state.proto {
                Proto::Tcp(peers) => CtProgress::Tcp(peers.map(|p| p.saved())),
                Proto::Icmp(t) | Proto::Other(t) => CtProgress::Talk(*t as u8),
            },
            nat: conn.translated.saved(),
            helper: conn.helper.map(|h| h.name().to_owned()),
            zone_timeouts: conn.policy != DEFAULT_POLICY,
            parent: conn.parent.as_deref().map(tuple),
            skew,
            expected,
        }
    }

    /// Removes the one whose original direction this is. See [`ib_dpif::conntrack::CtControl::remove`].
    pub(crate) fn remove_one(&self, zone: u16, orig: &CtTuple) -> bool {
        let key = key(orig, zone);
        let found = self.find(&key, self.now_ms.load(Ordering::Relaxed));
        found.is_some_and(|entry| entry.conn.orig == key && self.remove(&entry.conn))
    }

    /// Takes one in. See [`ib_dpif::conntrack::CtControl::restore`].
    pub(crate) fn restore_one(&self, saved: &CtSaved) -> Result<(), String> {
        let (orig, reply) = (key(&saved.orig, saved.zone), key(&saved.reply, saved.zone));
        let end = Translated::restored(saved.nat);
        // What is not translated answers from where it was called.
        let backwards = orig.reversed();
        let same = match end {
            Translated::Neither => reply == backwards,
            Translated::Source => (reply.src, reply.sport) == (backwards.src, backwards.sport),
            Translated::Destination => (reply.dst, reply.dport) == (backwards.dst, backwards.dport),
        };
        if !same {
            return Err(format!(
                "{} to {}: the reply is of another connection",
                saved.orig.src, saved.orig.dst
            ));
        }
        let helper = match &saved.helper {
            None => None,
            Some(name) => {
                Some(Helper::for_packet(Some(name)).ok_or_else(|| format!("unknown helper \"{name}\""))?)
            }
        };
        if saved.left_ms == 0 {
            return Ok(());
        }
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let max = self.max_conns.load(Ordering::Relaxed);
        if self.count.load(Ordering::Relaxed) >= max {
            return Err(format!("the limit of {max} connections is reached"));
        }
        let policy = if saved.zone_timeouts { self.timeouts.read().of_zone(saved.zone) } else { None };
        let conn = Arc::new(Conn {
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            orig,
            reply,
            translated: end,
            helper,
            policy: policy.unwrap_or(DEFAULT_POLICY),
            parent: saved.parent.as_ref().map(|p| Box::new(key(p, saved.zone))),
            state: Mutex::new(State {
                proto: match &saved.progress {
                    CtProgress::Tcp([a, b]) => Proto::Tcp([Peer::restored(a), Peer::restored(b)]),
                    CtProgress::Talk(n) => talk(&orig, *n),
                },
                mark: saved.mark,
                label: saved.label,
                expires_ms: u64::MAX,
                noted_s: u64::MAX,
                dead: false,
                alg: None,
            }),
        });
        // What has either of its keys is older than what comes.
        for taken in [&orig, &reply].into_iter().filter_map(|k| self.find(k, now_ms)) {
            self.remove(&taken.conn);
        }
        if !self.insert(&conn, true) {
            return Err(format!("{} to {}: its place is taken", saved.orig.src, saved.orig.dst));
        }
        let mut state = conn.state.lock();
        self.expire_at(&conn, &mut state, now_ms.saturating_add(saved.left_ms.min(LONGEST_MS)));
        self.restore_alg(&conn, &mut state, &saved.skew, &saved.expected);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_dpif::conntrack::{CtControl, TcpState};
    use ib_dpif::ct_saved::{CtExpected, CtNat, CtPeer, CtSkew};

    fn tuple_of(src: &str, dst: &str, proto: u8, sport: u16, dport: u16) -> CtTuple {
        CtTuple { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, sport, dport, id: 0 }
    }

    fn ftp() -> CtSaved {
        let peer = CtPeer {
            state: TcpState::Established,
            lo: 1000,
            hi: 70_000,
            max_win: 512,
            wscale: Some(7),
            unknown: false,
        };
        CtSaved {
            orig: tuple_of("10.0.0.1", "192.0.2.9", 6, 40000, 21),
            reply: tuple_of("192.0.2.9", "192.0.2.1", 6, 21, 61000),
            zone: 5,
            mark: 7,
            label: 1 << 100,
            left_ms: 60_000,
            progress: CtProgress::Tcp([peer, CtPeer { wscale: None, ..peer }]),
            nat: CtNat::Source,
            helper: Some("ftp".into()),
            zone_timeouts: false,
            parent: None,
            skew: [CtSkew { at: 5, before: -1, after: 3 }, CtSkew::default()],
            expected: vec![CtExpected {
                src: "192.0.2.9".parse().unwrap(),
                dst: "192.0.2.1".parse().unwrap(),
                proto: 6,
                dport: 50000,
                nat: CtNat::Destination,
                addr: "10.0.0.1".parse().unwrap(),
                port: Some(50000),
            }],
        }
    }

    fn table() -> Conntrack {
        let table = Conntrack::default();
        table.sweep(1_000_000);
        table
    }

    #[test]
    fn what_comes_leaves_as_it_came() {
        let table = table();
        table.restore(&ftp()).unwrap();
        assert_eq!(table.save(&|_| true), [ftp()]);
        assert_eq!(table.n_conns(), 1);
        let expected = key(&tuple_of("192.0.2.9", "192.0.2.1", 6, 20, 50000), 5);
        assert_eq!(table.expected(&expected).unwrap().parent, key(&ftp().orig, 5));
        assert!(table.save(&|e| e.zone == 6).is_empty());
    }

    #[test]
    fn the_later_copy_counts_and_time_goes_on() {
        let table = table();
        table.restore(&ftp()).unwrap();
        table.restore(&CtSaved { mark: 8, left_ms: 2000, ..ftp() }).unwrap();
        assert_eq!(table.save(&|_| true).iter().map(|c| c.mark).collect::<Vec<_>>(), [8]);
        table.sweep(1_004_000);
        assert_eq!((table.n_conns(), table.save(&|_| true).len()), (0, 0));
        table.restore(&CtSaved { left_ms: 0, ..ftp() }).unwrap();
        assert_eq!(table.n_conns(), 0);
        table.restore(&CtSaved { left_ms: u64::MAX, ..ftp() }).unwrap();
        assert_eq!(table.save(&|_| true)[0].left_ms, LONGEST_MS);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let table = table();
        let bad = [
            CtSaved { nat: CtNat::None, ..ftp() },
            CtSaved { nat: CtNat::Destination, ..ftp() },
            CtSaved { helper: Some("sip".into()), ..ftp() },
            CtSaved { reply: tuple_of("192.0.2.8", "192.0.2.1", 6, 21, 61000), ..ftp() },
        ];
        for conn in &bad {
            assert!(table.restore(conn).is_err(), "{conn:?}");
        }
        table.set_max_conns(0);
        assert_eq!(table.restore(&ftp()), Err("the limit of 0 connections is reached".into()));
        assert_eq!(table.n_conns(), 0);
    }
}
