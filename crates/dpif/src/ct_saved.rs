//! Connections on the move: all that a connection needs to go on in another table, and its JSON form.
//!
//! [`CtSaved`] is what [`CtControl::save`](crate::conntrack::CtControl::save) gives and
//! [`restore`](crate::conntrack::CtControl::restore) takes. Times are what is left of them, so that two hosts need no common clock. The
//! JSON form is part of the file that `ironbridge port export` writes; what is read from it is checked here for its shape (types, ranges,
//! families of addresses), and by the table for its sense.

use std::net::IpAddr;

use ib_base::json::{Json, Object};

use crate::conntrack::{CtTuple, TcpState};

/// Most connections that one may have announced.
const MAX_EXPECTED: usize = 64;

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CtNat {
    /// None.
    #[default]
    None,
    /// Source.
    Source,
    /// Destination.
    Destination,
}

/// One end of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CtPeer {
    /// State.
    pub state: TcpState,
    /// Next sequence number that it is to send.
    pub lo: u32,
    /// Highest that it may send.
    pub hi: u32,
    /// Largest window that it offered, unscaled.
    pub max_win: u16,
    /// Window scale, if it scales.
    pub wscale: Option<u8>,
    /// Whether it scales is unknown.
    pub unknown: bool,
}

/// How far the talk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtProgress {
    /// TCP: originator, then the other.
    Tcp([CtPeer; 2]),
    /// Others: one packet (0), several of the originator (1), packets of both (2).
    Talk(u8),
}

/// How far the sequence numbers of a direction have been moved: `before` up to `at`, `after` behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtSkew {
    /// Sequence number.
    pub at: u32,
    /// Up to it.
    pub before: i32,
    /// Behind it.
    pub after: i32,
}

/// A connection that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CtExpected {
    /// Who will begin it.
    pub src: IpAddr,
    /// With whom.
    pub dst: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// Port that it goes to.
    pub dport: u16,
    /// Which end is translated.
    pub nat: CtNat,
    /// Into what.
    pub addr: IpAddr,
    /// Into which port.
    pub port: Option<u16>,
}

/// A connection with all that it takes to go on elsewhere.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct CtSaved {
    /// Original direction.
    pub orig: CtTuple,
    /// Reply direction.
    pub reply: CtTuple,
    /// Zone.
    pub zone: u16,
    /// Mark.
    pub mark: u32,
    /// Label.
    pub label: u128,
    /// Time left, ms.
    pub left_ms: u64,
    /// How far it has come.
    pub progress: CtProgress,
    /// Which end is translated.
    pub nat: CtNat,
    /// Helper.
    pub helper: Option<String>,
    /// The zone's timeouts apply, not the general ones.
    pub zone_timeouts: bool,
    /// Original direction of the connection that announced it.
    pub parent: Option<CtTuple>,
    /// Of the original direction and of the reply.
    pub skew: [CtSkew; 2],
    /// What it announced.
    pub expected: Vec<CtExpected>,
}

/// The JSON form of a direction.
pub fn tuple_json(t: &CtTuple) -> Json {
    let n = |n: u16| Json::from(u32::from(n));
    Json::array([
        Json::from(t.src.to_string()),
        Json::from(t.dst.to_string()),
        n(t.proto.into()),
        n(t.sport),
        n(t.dport),
        n(t.id),
    ])
}

fn number<T: TryFrom<i64>>(json: &Json) -> Option<T> {
    json.as_integer().and_then(|n| T::try_from(n).ok())
}

fn address(json: &Json) -> Option<IpAddr> {
    json.as_str()?.parse().ok()
}

/// Reads the JSON form of a direction.
pub fn tuple(json: &Json) -> Option<CtTuple> {
    let [src, dst, proto, sport, dport, id] = json.as_array()? else { return None };
    let t = CtTuple {
        src: address(src)?,
        dst: address(dst)?,
        proto: number(proto)?,
        sport: number(sport)?,
        dport: number(dport)?,
        id: number(id)?,
    };
    (t.src.is_ipv6() == t.dst.is_ipv6()).then_some(t)
}

fn nat_name(nat: CtNat) -> &'static str {
    match nat {
        CtNat::None => "none",
        CtNat::Source => "source",
        CtNat::Destination => "destination",
    }
}

fn nat(json: &Json) -> Option<CtNat> {
    [CtNat::None, CtNat::Source, CtNat::Destination].into_iter().find(|n| json.as_str() == Some(nat_name(*n)))
}

fn peer_json(p: &CtPeer) -> Json {
    Json::array([
        Json::from(p.state.name()),
        Json::from(p.lo),
        Json::from(p.hi),
        Json::from(u32::from(p.max_win)),
        p.wscale.map_or(Json::Null, |w| Json::from(u32::from(w))),
        Json::from(p.unknown),
    ])
}

fn peer(json: &Json) -> Option<CtPeer> {
    let [state, lo, hi, max_win, wscale, unknown] = json.as_array()? else { return None };
    let wscale = match wscale {
        Json::Null => None,
        n => Some(number::<u8>(n).filter(|w| *w <= 14)?),
    };
    Some(CtPeer {
        state: TcpState::ALL.into_iter().find(|s| state.as_str() == Some(s.name()))?,
        lo: number(lo)?,
        hi: number(hi)?,
        max_win: number(max_win)?,
        wscale,
        unknown: unknown.as_bool()?,
    })
}

fn skew(json: &Json) -> Option<CtSkew> {
    let [at, before, after] = json.as_array()? else { return None };
    Some(CtSkew { at: number(at)?, before: number(before)?, after: number(after)? })
}

fn expected_json(x: &CtExpected) -> Json {
    Json::array([
        Json::from(x.src.to_string()),
        Json::from(x.dst.to_string()),
        Json::from(u32::from(x.proto)),
        Json::from(u32::from(x.dport)),
        Json::from(nat_name(x.nat)),
        Json::from(x.addr.to_string()),
        x.port.map_or(Json::Null, |p| Json::from(u32::from(p))),
    ])
}

fn expected(json: &Json) -> Option<CtExpected> {
    let [src, dst, proto, dport, end, addr, port] = json.as_array()? else { return None };
    let x = CtExpected {
        src: address(src)?,
        dst: address(dst)?,
        proto: number(proto)?,
        dport: number(dport)?,
        nat: nat(end)?,
        addr: address(addr)?,
        port: if port.is_null() { None } else { Some(number(port)?) },
    };
    let v6 = x.src.is_ipv6();
    (x.dst.is_ipv6() == v6 && x.addr.is_ipv6() == v6).then_some(x)
}

impl CtSaved {
    /// The JSON form; members that would say nothing are left out.
    pub fn to_json(&self) -> Json {
        let mut o = Object::new();
        o.insert("orig", tuple_json(&self.orig));
        o.insert("reply", tuple_json(&self.reply));
        o.insert("zone", u32::from(self.zone));
        o.insert("left_ms", i64::try_from(self.left_ms).unwrap_or(i64::MAX));
        if self.mark != 0 {
            o.insert("mark", self.mark);
        }
        if self.label != 0 {
            o.insert("label", format!("{:#x}", self.label));
        }
        match &self.progress {
            CtProgress::Tcp(peers) => o.insert("tcp", Json::array(peers.iter().map(peer_json))),
            CtProgress::Talk(n) => o.insert("talk", u32::from(*n)),
        };
        if self.nat != CtNat::None {
            o.insert("nat", nat_name(self.nat));
        }
        if let Some(helper) = &self.helper {
            o.insert("helper", helper.as_str());
        }
        if self.zone_timeouts {
            o.insert("zone_timeouts", true);
        }
        if let Some(parent) = &self.parent {
            o.insert("parent", tuple_json(parent));
        }
        if self.skew != [CtSkew::default(); 2] {
            let one = |s: &CtSkew| Json::array([Json::from(s.at), Json::from(s.before), Json::from(s.after)]);
            o.insert("skew", Json::array(self.skew.iter().map(one)));
        }
        if !self.expected.is_empty() {
            o.insert("expected", Json::array(self.expected.iter().map(expected_json)));
        }
        Json::Object(o)
    }

    /// Reads the JSON form. The error names the member that is wrong.
    pub fn from_json(json: &Json) -> Result<CtSaved, &'static str> {
        const KNOWN: [&str; 13] = [
            "orig",
            "reply",
            "zone",
            "left_ms",
            "mark",
            "label",
            "tcp",
            "talk",
            "nat",
            "helper",
            "zone_timeouts",
            "parent",
            "skew",
        ];
        let members = json.as_object().ok_or("no object")?;
        if members.keys().any(|k| !KNOWN.contains(&&**k) && &**k != "expected") {
            return Err("a member that is unknown");
        }
        let get = |name| json.get(name);
        let must = |name: &'static str| json.get(name).ok_or(name);
        let orig = tuple(must("orig")?).ok_or("orig")?;
        let reply = tuple(must("reply")?).ok_or("reply")?;
        if reply.proto != orig.proto || reply.src.is_ipv6() != orig.src.is_ipv6() {
            return Err("reply");
        }
        let progress = match (get("tcp"), get("talk")) {
            (Some(tcp), None) if orig.proto == 6 => match tcp.as_array() {
                Some([a, b]) => CtProgress::Tcp([peer(a).ok_or("tcp")?, peer(b).ok_or("tcp")?]),
                _ => return Err("tcp"),
            },
            (None, Some(n)) if orig.proto != 6 => {
                CtProgress::Talk(number(n).filter(|n| *n <= 2).ok_or("talk")?)
            }
            _ => return Err("tcp or talk"),
        };
        let label = match get("label") {
            None => 0,
            Some(text) => text
                .as_str()
                .and_then(|t| u128::from_str_radix(t.strip_prefix("0x")?, 16).ok())
                .ok_or("label")?,
        };
        let skews = match get("skew").map(Json::as_array) {
            None => [CtSkew::default(); 2],
            Some(Some([a, b])) => [skew(a).ok_or("skew")?, skew(b).ok_or("skew")?],
            Some(_) => return Err("skew"),
        };
        let announced = match get("expected") {
            None => Vec::new(),
            Some(list) => {
                let list = list.as_array().filter(|l| l.len() <= MAX_EXPECTED).ok_or("expected")?;
                let all: Option<Vec<CtExpected>> = list.iter().map(expected).collect();
                all.filter(|all| all.iter().all(|x| x.src.is_ipv6() == orig.src.is_ipv6()))
                    .ok_or("expected")?
            }
        };
        Ok(CtSaved {
            orig,
            reply,
            zone: number(must("zone")?).ok_or("zone")?,
            mark: get("mark").map_or(Ok(0), |m| number(m).ok_or("mark"))?,
            label,
            left_ms: number(must("left_ms")?).ok_or("left_ms")?,
            progress,
            nat: get("nat").map_or(Ok(CtNat::None), |n| nat(n).ok_or("nat"))?,
            helper: get("helper").map(|h| h.as_str().map(str::to_owned).ok_or("helper")).transpose()?,
            zone_timeouts: get("zone_timeouts").map_or(Ok(false), |b| b.as_bool().ok_or("zone_timeouts"))?,
            parent: get("parent").map(|p| tuple(p).ok_or("parent")).transpose()?,
            skew: skews,
            expected: announced,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> CtSaved {
        let t = |src: &str, dst: &str, sport, dport| CtTuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: 6,
            sport,
            dport,
            id: 0,
        };
        let peer = CtPeer {
            state: TcpState::Established,
            lo: 1,
            hi: u32::MAX,
            max_win: 512,
            wscale: Some(7),
            unknown: false,
        };
        CtSaved {
            orig: t("10.0.0.1", "10.0.0.2", 40000, 21),
            reply: t("10.0.0.2", "192.0.2.1", 21, 40000),
            zone: 5,
            mark: 7,
            label: 1 << 100,
            left_ms: 12_345,
            progress: CtProgress::Tcp([peer, CtPeer { wscale: None, unknown: true, ..peer }]),
            nat: CtNat::Source,
            helper: Some("ftp".into()),
            zone_timeouts: true,
            parent: Some(t("10.0.0.1", "10.0.0.2", 1, 2)),
            skew: [CtSkew { at: 5, before: -1, after: 3 }, CtSkew::default()],
            expected: vec![CtExpected {
                src: "10.0.0.2".parse().unwrap(),
                dst: "192.0.2.1".parse().unwrap(),
                proto: 6,
                dport: 50000,
                nat: CtNat::Destination,
                addr: "10.0.0.1".parse().unwrap(),
                port: Some(50000),
            }],
        }
    }

    #[test]
    fn all_of_it_comes_back() {
        let json = saved().to_json();
        assert_eq!(CtSaved::from_json(&json), Ok(saved()));
        let text = json.to_text(Default::default());
        assert_eq!(CtSaved::from_json(&Json::parse(&text).unwrap()), Ok(saved()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |name: &str, value: &str| {
            let Json::Object(mut o) = saved().to_json() else { unreachable!() };
            let Json::Array(mut values) = Json::parse(&format!("[{value}]")).unwrap() else { unreachable!() };
            o.insert(name, values.remove(0));
            CtSaved::from_json(&Json::Object(o)).unwrap_err()
        };
        assert_eq!(with("zone", "65536"), "zone");
        assert_eq!(with("left_ms", "-1"), "left_ms");
        assert_eq!(with("orig", r#"["10.0.0.1","::1",6,1,2,0]"#), "orig");
        assert_eq!(with("reply", r#"["::2","::1",6,1,2,0]"#), "reply");
        assert_eq!(with("reply", r#"["10.0.0.2","10.0.0.1",17,1,2,0]"#), "reply");
        assert_eq!(with("tcp", "[]"), "tcp");
        assert_eq!(with("talk", "1"), "tcp or talk");
        assert_eq!(with("label", "\"12\""), "label");
        assert_eq!(with("nat", "\"both\""), "nat");
        assert_eq!(with("colour", "1"), "a member that is unknown");
        assert_eq!(with("expected", r#"[["::1","::2",6,1,"none","::3",null]]"#), "expected");
        assert_eq!(CtSaved::from_json(&Json::Null), Err("no object"));
    }
}
