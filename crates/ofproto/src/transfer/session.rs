//! Moves in several passes: what has been given to the other switch already, and what has been taken from it.
//!
//! A machine with many connections is copied while it runs, and again what has changed since, until little is left for the moment in which it
//! stands still. The switch that gives remembers for each connection a digest of what it gave; the switch that takes
//! remembers which connections it has only from there, so that a move that is called off leaves none behind. Both remember it under a
//! name that whoever moves them makes up, until `port-state/end`, or until nobody asks for [`PATIENCE_MS`].
//!
//! Cost: 16 bytes and the key of a connection; looking for differences reads all connections of the zones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ib_base::json::Json;
use ib_base::time::Instant;
use ib_dpif::conntrack::{CtControl, CtTuple};
use ib_dpif::ct_saved::{CtSaved, tuple, tuple_json};
use ib_flow::OfPort;

use crate::switch::Switch;

/// Sessions at a time.
const MAX_SESSIONS: usize = 64;
/// How long a session may be silent.
const PATIENCE_MS: u64 = 10 * 60 * 1000;
/// A connection whose end has moved by less has not changed: clocks of tables are not read together.
const SLACK_MS: u64 = 2000;

/// A connection's zone and original direction.
pub(super) type Id = (u16, CtTuple);

/// What was said of a connection.
struct Said {
    digest: u64,
    expires_ms: u64,
    /// The pass that saw it last.
    pass: u32,
}

/// One move's memory in one switch.
#[derive(Default)]
pub(crate) struct Session {
    used_ms: u64,
    pass: u32,
    said: HashMap<Id, Said>,
    /// Connections that are here because of the move.
    taken: HashSet<Id>,
    /// The other switch has been told that the move is done.
    has_finished: bool,
    /// The ports that move, and zones of theirs: whoever stops their machine may take them away before the last copy.
    ports: Vec<(String, OfPort)>,
    zones: BTreeSet<u16>,
    /// The datapath that took them.
    table: Option<std::sync::Arc<dyn ib_dpif::provider::Dpif>>,
}

/// All of a switch.
pub(crate) type Sessions = BTreeMap<String, Session>;

/// What is new since the pass before.
pub(super) struct News {
    pub(super) connections: Vec<CtSaved>,
    pub(super) gone: Vec<Id>,
    /// More has changed than was asked for.
    pub(super) more: bool,
}

fn digest(c: &CtSaved) -> u64 {
    let mut hasher = DefaultHasher::new();
    c.hash(&mut hasher);
    hasher.finish()
}

impl Session {
    /// Those of `all` connections that the other switch does not know as they are now, at most `limit`.
    pub(super) fn news(&mut self, all: Vec<CtSaved>, limit: usize, now: Instant) -> News {
        self.pass = self.pass.wrapping_add(1);
        let mut news = News { connections: Vec::new(), gone: Vec::new(), more: false };
        for mut c in all {
            let left_ms = std::mem::take(&mut c.left_ms);
            let (id, digest) = ((c.zone, c.orig), digest(&c));
            let expires_ms = now.as_ms().saturating_add(left_ms);
            c.left_ms = left_ms;
            let known = self.said.get_mut(&id);
            let same = known
                .as_ref()
                .is_some_and(|s| s.digest == digest && s.expires_ms.abs_diff(expires_ms) <= SLACK_MS);
            match known {
                Some(s) if same || news.connections.len() >= limit => {
                    s.pass = self.pass;
                    news.more |= !same;
                    continue;
                }
                None if news.connections.len() >= limit => {
                    news.more = true;
                    continue;
                }
                _ => {}
            }
            self.said.insert(id, Said { digest, expires_ms, pass: self.pass });
            news.connections.push(c);
        }
        let pass = self.pass;
        self.said.retain(|id, s| {
            let is_there = s.pass == pass;
            if !is_there {
                news.gone.push(*id);
            }
            is_there
        });
        news
    }

    /// Remembers the ports and adds zones to those that are known; all of these.
    pub(super) fn remember(
        &mut self,
        ports: impl Iterator<Item = (String, OfPort)>,
        zones: &[u16],
    ) -> Vec<u16> {
        for (name, port) in ports {
            if !self.ports.iter().any(|(known, _)| *known == name) {
                self.ports.push((name, port));
            }
        }
        self.zones.extend(zones);
        self.zones.iter().copied().collect()
    }

    /// Notes that a connection is here only because of the move.
    pub(super) fn note_taken(&mut self, id: Id) {
        self.taken.insert(id);
    }

    /// Whether a connection is here only because of the move.
    pub(super) fn has_taken(&self, id: &Id) -> bool {
        self.taken.contains(id)
    }

    /// Removes what the other switch has no longer, as far as it came from there.
    pub(super) fn drop_gone(&mut self, table: &dyn CtControl, gone: &[Id]) {
        for id in gone {
            if self.taken.remove(id) {
                table.remove(id.0, &id.1);
            }
        }
    }

    pub(super) fn set_table(&mut self, dpif: &std::sync::Arc<dyn ib_dpif::provider::Dpif>) {
        self.table = Some(std::sync::Arc::clone(dpif));
    }
}

/// What a port that is gone was numbered when a session began to move it.
pub(super) fn ports_of<'a>(sessions: &'a Sessions, name: Option<&str>) -> &'a [(String, OfPort)] {
    name.and_then(|name| sessions.get(name)).map_or(&[], |s| &s.ports)
}

pub(super) fn id_json(id: &Id) -> Json {
    Json::array([Json::from(u32::from(id.0)), tuple_json(&id.1)])
}

pub(super) fn id(json: &Json) -> Result<Id, String> {
    let found = match json.as_array() {
        Some([zone, orig]) => zone.as_integer().and_then(|z| u16::try_from(z).ok()).zip(tuple(orig)),
        _ => None,
    };
    found.ok_or_else(|| "a connection that has gone is no zone and direction".to_owned())
}

/// The session of a name, begun if it is not there.
pub(super) fn open<'a>(
    sessions: &'a mut Sessions,
    name: &str,
    now: Instant,
) -> Result<&'a mut Session, String> {
    let now_ms = now.as_ms();
    sessions.retain(|_, s| now_ms.saturating_sub(s.used_ms) < PATIENCE_MS);
    if !sessions.contains_key(name) && sessions.len() >= MAX_SESSIONS {
        return Err(format!("{MAX_SESSIONS} moves are under way already"));
    }
    let session = sessions.entry(name.to_owned()).or_default();
    session.used_ms = now_ms;
    Ok(session)
}

/// `port-state/end [--undo | --finished | --outcome] SESSION`
///
/// A session that has finished is remembered as such for [`PATIENCE_MS`], for whoever asks for its `--outcome`.
pub(crate) fn end(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let (option, name) = match args {
        [name] => ("", *name),
        [option @ ("--undo" | "--finished" | "--outcome"), name] => (*option, *name),
        _ => return Err("one session is needed".into()),
    };
    let now = switch.clock.now();
    if option == "--outcome" {
        let outcome = match switch.sessions.get(name) {
            Some(s) if s.has_finished => "finished",
            Some(_) => "open",
            None => "unknown",
        };
        return Ok(format!("{outcome}\n"));
    }
    if option == "--finished" {
        // Whoever has been asked meanwhile what has become of the move has called it off.
        if !switch.sessions.contains_key(name) {
            return Err(format!("{name}: no such session"));
        }
        let has_finished = Session { used_ms: now.as_ms(), has_finished: true, ..Session::default() };
        switch.sessions.insert(name.to_owned(), has_finished);
        return Ok("finished\n".into());
    }
    if option == "--undo" && switch.sessions.get(name).is_some_and(|s| s.has_finished) {
        return Err(format!("{name} has finished"));
    }
    let Some(session) = switch.sessions.remove(name) else { return Ok("0 connections removed\n".into()) };
    let mut n = 0;
    if option == "--undo"
        && let Some(table) = session.table.as_ref().and_then(|d| d.conntrack())
    {
        n = session.taken.iter().filter(|(zone, orig)| table.remove(*zone, orig)).count();
    }
    Ok(format!("{n} connections removed\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_dpif::ct_saved::{CtNat, CtProgress, CtSkew};

    fn saved(port: u16, talk: u8, left_ms: u64) -> CtSaved {
        let t = |src: &str, dst: &str, sport, dport| CtTuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: 17,
            sport,
            dport,
            id: 0,
        };
        CtSaved {
            orig: t("10.0.0.1", "10.0.0.2", port, 53),
            reply: t("10.0.0.2", "10.0.0.1", 53, port),
            zone: 4,
            mark: 0,
            label: 0,
            left_ms,
            progress: CtProgress::Talk(talk),
            nat: CtNat::None,
            helper: None,
            zone_timeouts: false,
            parent: None,
            skew: [CtSkew::default(); 2],
            expected: Vec::new(),
        }
    }

    #[test]
    fn what_has_not_changed_is_said_once() {
        let mut s = Session::default();
        let at = Instant::from_ms;
        let ports = |n: &News| n.connections.iter().map(|c| c.orig.sport).collect::<Vec<_>>();
        let first = s.news(vec![saved(1, 0, 60_000), saved(2, 0, 60_000), saved(3, 0, 60_000)], 2, at(1000));
        assert_eq!((ports(&first), first.more, first.gone.len()), (vec![1, 2], true, 0));
        // The third one had not been said; the second has changed, and time has passed.
        let all = || vec![saved(1, 0, 59_000), saved(2, 1, 59_000), saved(3, 0, 59_000)];
        let second = s.news(all(), 9, at(2000));
        assert_eq!((ports(&second), second.more), (vec![2, 3], false));
        assert!(s.news(all(), 9, at(2000)).connections.is_empty());
        // A packet gave the first one its time back; the second is gone.
        let last = s.news(vec![saved(1, 0, 60_000), saved(3, 0, 49_000)], 9, at(12_000));
        assert_eq!(ports(&last), [1]);
        assert_eq!(last.gone.iter().map(|(zone, t)| (*zone, t.sport)).collect::<Vec<_>>(), [(4, 2)]);
        assert_eq!(id(&id_json(&last.gone[0])), Ok(last.gone[0]));
        assert!(id(&Json::from(4)).is_err());
    }

    #[test]
    fn one_that_waits_for_its_turn_is_not_gone() {
        let mut s = Session::default();
        let all = |talk| vec![saved(1, talk, 1), saved(2, talk, 1)];
        s.news(all(0), 9, Instant::from_ms(0));
        let news = s.news(all(1), 1, Instant::from_ms(0));
        assert!(news.more && news.gone.is_empty() && news.connections.len() == 1);
        assert_eq!(s.news(all(1), 9, Instant::from_ms(0)).connections.len(), 1);
    }

    #[test]
    fn forgotten_sessions_make_room() {
        let mut all = Sessions::new();
        for n in 0..MAX_SESSIONS {
            open(&mut all, &n.to_string(), Instant::from_ms(5)).unwrap();
        }
        assert!(open(&mut all, "x", Instant::from_ms(5)).is_err());
        assert!(open(&mut all, "x", Instant::from_ms(5 + PATIENCE_MS)).is_ok());
        assert_eq!(all.len(), 1);
    }
}
