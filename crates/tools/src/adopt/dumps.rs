//! What Open vSwitch prints of learned addresses, multicast memberships and connections, read into the form of `port-state/restore`
//! (docs/port-state.md).
//!
//! The texts come from another program: a line that says something else than is known here is an error that quotes it. Where
//! Open vSwitch does not print all that a connection has, what is missing is left open so that the connection goes on: see [`connections`].

use std::net::IpAddr;

use ib_base::json::Json;
use ib_dpif::conntrack::{CtTuple, TcpState};
use ib_dpif::ct_saved::{CtNat, CtPeer, CtProgress, CtSaved, CtSkew};

/// Ports of a bridge: number and name.
pub type Ports = [(u16, String)];

fn bad(what: &str, line: &str) -> String {
    format!("{what}: cannot read \"{line}\"")
}

/// A port's name; `LOCAL` and numbers as the switch prints them.
fn port(ports: &Ports, word: &str) -> Option<String> {
    let number = if word == "LOCAL" { 0xfffe } else { word.parse().ok()? };
    ports.iter().find(|(n, _)| *n == number).map(|(_, name)| name.clone())
}

/// `fdb/show`.
pub fn addresses(text: &str, ports: &Ports) -> Result<Vec<Json>, String> {
    let mut out = Vec::new();
    for line in text.lines().skip(1).filter(|l| !l.trim().is_empty()) {
        let wrong = || bad("fdb/show", line);
        let [at, vlan, mac, age] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        mac.parse::<ib_packet::Mac>().map_err(|_| wrong())?;
        let age = match age {
            "static" => Json::Null,
            age => Json::from(age.parse::<u32>().map_err(|_| wrong())?),
        };
        // One behind a port that has gone meanwhile is not worth stopping for.
        let Some(name) = port(ports, at) else { continue };
        out.push(Json::object([
            ("mac", Json::from(mac)),
            ("vlan", Json::from(vlan.parse::<u16>().map(u32::from).map_err(|_| wrong())?)),
            ("port", Json::from(name)),
            ("age_s", age),
        ]));
    }
    Ok(out)
}

/// `mdb/show`. Routers are left out: they make themselves known.
pub fn memberships(text: &str, ports: &Ports) -> Result<Vec<Json>, String> {
    let mut out = Vec::new();
    for line in text.lines().skip(1).filter(|l| !l.trim().is_empty()) {
        let wrong = || bad("mdb/show", line);
        let words: Vec<&str> = line.split_whitespace().collect();
        // Newer ones have a column of the protocol.
        let (at, vlan, group, protocol, age) = match words[..] {
            [_, _, "querier", ..] => continue,
            [at, vlan, group, age] => (at, vlan, group, None, age),
            [at, vlan, group, protocol, age] => (at, vlan, group, Some(protocol), age),
            _ => return Err(wrong()),
        };
        let group: IpAddr = group.parse().map_err(|_| wrong())?;
        let (v6, general) = match group {
            IpAddr::V4(a) => (a.to_ipv6_mapped(), "IGMPv2"),
            IpAddr::V6(a) => (a, if a.to_ipv4_mapped().is_some() { "IGMPv2" } else { "MLDv1" }),
        };
        let Some(name) = port(ports, at) else { continue };
        out.push(Json::object([
            ("group", Json::from(v6.to_string())),
            ("vlan", Json::from(vlan.parse::<u16>().map(u32::from).map_err(|_| wrong())?)),
            ("port", Json::from(name)),
            ("protocol", Json::from(protocol.unwrap_or(general))),
            ("age_s", Json::from(age.parse::<u32>().map_err(|_| wrong())?)),
        ]));
    }
    Ok(out)
}

/// The members of `name=(...)` or `name=value,...` at one level.
fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut depth = 0_u32;
        let mut end = rest.len();
        for (i, c) in rest.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.checked_sub(1)?,
                ',' if depth == 0 => {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        if depth != 0 {
            return None;
        }
        let (member, after) = rest.split_at(end);
        out.push(member.split_once('=').unwrap_or((member, "")));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(out)
}

fn number<T: TryFrom<u128>>(text: &str) -> Option<T> {
    let n = match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok()?,
        None => text.parse().ok()?,
    };
    T::try_from(n).ok()
}

struct Side {
    src: IpAddr,
    dst: IpAddr,
    sport: u16,
    dport: u16,
    id: u16,
    kind: u16,
}

fn side(text: &str) -> Option<Side> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let all = members(inner)?;
    let get = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let or_0 = |name: &str| get(name).map_or(Some(0), number::<u16>);
    Some(Side {
        src: get("src")?.parse().ok()?,
        dst: get("dst")?.parse().ok()?,
        sport: or_0("sport")?,
        dport: or_0("dport")?,
        id: or_0("id")?,
        kind: or_0("type")?,
    })
}

/// Time left where none is printed, seconds.
fn default_left_s(proto: u8) -> u64 {
    if proto == 6 { 86_400 } else { 30 }
}

/// One end as far as the text tells: its numbers are taken from its next segment, in the widest window.
fn peer(wscale: Option<u8>) -> CtPeer {
    CtPeer { state: TcpState::Closed, lo: 0, hi: 1, max_win: u16::MAX, wscale, unknown: wscale.is_none() }
}

fn connection(line: &str) -> Option<Option<CtSaved>> {
    let all = members(line)?;
    let get = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let proto = match all.first()?.0 {
        "icmp" => 1,
        "igmp" => 2,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        other => number::<u8>(other)?,
    };
    let (orig, reply) = (side(get("orig")?)?, side(get("reply")?)?);
    let icmp = proto == 1 || proto == 58;
    let tuple = |s: &Side, other: &Side| CtTuple {
        src: s.src,
        dst: s.dst,
        proto,
        sport: if icmp { s.kind } else { s.sport },
        dport: if icmp { other.kind } else { s.dport },
        id: s.id,
    };
    let (o, r) = (tuple(&orig, &reply), tuple(&reply, &orig));
    if [o.dst, r.src, r.dst].iter().any(|a| a.is_ipv6() != o.src.is_ipv6()) {
        return None;
    }
    let source = (r.dst, r.dport) != (o.src, o.sport);
    let destination = (r.src, r.sport) != (o.dst, o.dport);
    let nat = match (source, destination) {
        (false, false) => CtNat::None,
        (true, false) => CtNat::Source,
        (false, true) => CtNat::Destination,
        // Both at once is more than one connection here has.
        (true, true) => return Some(None),
    };
    let progress = if proto == 6 {
        let info = get("protoinfo")?;
        let info = members(info.strip_prefix('(')?.strip_suffix(')')?)?;
        let of = |name: &str| info.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let states = [of("state_orig").or(of("state"))?, of("state_reply").or(of("state"))?];
        let known = |s: &str| TcpState::ALL.into_iter().find(|t| t.name() == s);
        let states = [known(states[0])?, known(states[1])?];
        if states.iter().all(|s| *s >= TcpState::FinWait2) {
            // It is over.
            return Some(None);
        }
        let scale = |name: &str| match of(name) {
            None => Some(None),
            Some(n) => number::<u8>(n).filter(|n| *n <= 14).map(Some),
        };
        CtProgress::Tcp([peer(scale("wscale_orig")?), peer(scale("wscale_reply")?)])
    } else {
        CtProgress::Talk(2)
    };
    let left_s = get("timeout").map_or(Some(default_left_s(proto)), number::<u64>)?;
    Some(Some(CtSaved {
        orig: o,
        reply: r,
        zone: get("zone").map_or(Some(0), number)?,
        mark: get("mark").map_or(Some(0), number)?,
        label: get("labels").map_or(Some(0), number)?,
        left_ms: left_s.saturating_mul(1000),
        progress,
        nat,
        helper: get("helper").map(str::to_owned),
        zone_timeouts: false,
        parent: None,
        skew: [CtSkew::default(); 2],
        expected: Vec::new(),
    }))
}

/// `dpctl/dump-conntrack -m -s`: connections, and how many are left out: those that are over, or translated at both ends.
///
/// Sequence numbers are not printed: both ends of a TCP connection begin anew with their next segments. Connections that
/// helpers expect are not printed either.
pub fn connections(text: &str) -> Result<(Vec<Json>, usize), String> {
    let (mut out, mut left_out) = (Vec::new(), 0);
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        match connection(line).ok_or_else(|| bad("dpctl/dump-conntrack", line))? {
            Some(saved) => out.push(saved.to_json()),
            None => left_out += 1,
        }
    }
    Ok((out, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_base::json::Style;

    fn ports() -> Vec<(u16, String)> {
        vec![(1, "pa".into()), (0xfffe, "br0".into())]
    }

    fn said(list: &[Json]) -> Vec<String> {
        list.iter().map(|j| j.to_text(Style::SORTED)).collect()
    }

    #[test]
    fn tables_of_addresses() {
        let text = " port  VLAN  MAC                Age\n    1     3  00:00:00:00:00:77  static\nLOCAL     0  ee:e1:80:6c:5e:51    4\n    9     0  ee:e1:80:6c:5e:52    4\n";
        let expect = [
            r#"{"age_s":null,"mac":"00:00:00:00:00:77","port":"pa","vlan":3}"#,
            r#"{"age_s":4,"mac":"ee:e1:80:6c:5e:51","port":"br0","vlan":0}"#,
        ];
        assert_eq!(said(&addresses(text, &ports()).unwrap()), expect);
        for line in ["1 0 ee:e1:80:6c:5e", "1 x ee:e1:80:6c:5e:51 1", "1 0 ee:e1:80:6c:5e:51 -1"] {
            let why = addresses(&format!("head\n{line}\n"), &ports()).unwrap_err();
            assert_eq!(why, format!("fdb/show: cannot read \"{line}\""));
        }
    }

    #[test]
    fn tables_of_groups() {
        let text = " port  VLAN  GROUP                Age\n    1     0  224.1.2.3          7\n    1     5  ff0e::7  MLDv2  9\n 1 0 querier 3\n";
        let expect = [
            r#"{"age_s":7,"group":"::ffff:224.1.2.3","port":"pa","protocol":"IGMPv2","vlan":0}"#,
            r#"{"age_s":9,"group":"ff0e::7","port":"pa","protocol":"MLDv2","vlan":5}"#,
        ];
        assert_eq!(said(&memberships(text, &ports()).unwrap()), expect);
        assert!(memberships("head\n1 0 nowhere 4\n", &ports()).is_err());
    }

    const TCP: &str = "tcp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=50158,dport=5000),reply=(src=10.9.0.2,dst=10.9.0.9,sport=5000,dport=50158),id=0,zone=5,status=0,timeout=86399,mark=17,labels=0x1,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=9,wscale_reply=7,flags_orig=WINDOW_SCALE,flags_reply=WINDOW_SCALE)";

    #[test]
    fn tables_of_connections() {
        let icmp = "icmp,orig=(src=10.9.0.1,dst=10.9.0.2,id=31364,type=8,code=0),reply=(src=10.9.0.2,dst=10.9.0.1,id=31364,type=0,code=0),id=0,zone=5,status=0";
        let over = TCP.replace("=ESTABLISHED", "=TIME_WAIT");
        let both = TCP.replace("reply=(src=10.9.0.2", "reply=(src=10.9.0.3");
        let (list, left_out) = connections(&format!("{TCP}\n{icmp}\n{over}\n{both}\n")).unwrap();
        assert_eq!(left_out, 2);
        let expect = [
            r#"{"label":"0x1","left_ms":86399000,"mark":17,"nat":"source","orig":["10.9.0.1","10.9.0.2",6,50158,5000,0],"reply":["10.9.0.2","10.9.0.9",6,5000,50158,0],"tcp":[["CLOSED",0,1,65535,9,false],["CLOSED",0,1,65535,7,false]],"zone":5}"#,
            r#"{"left_ms":30000,"orig":["10.9.0.1","10.9.0.2",1,8,0,31364],"reply":["10.9.0.2","10.9.0.1",1,0,8,31364],"talk":2,"zone":5}"#,
        ];
        assert_eq!(said(&list), expect);
    }

    #[test]
    fn connections_that_say_something_else_are_refused() {
        for (from, to) in [
            ("tcp,", "tcpx,"),
            ("orig=(src=10.9.0.1", "orig=(src=10.9.0"),
            ("orig=(src=10.9.0.1", "orig=(src=::1"),
            ("sport=50158", "sport=501580"),
            ("zone=5", "zone=70000"),
            ("mark=17", "mark=x"),
            ("timeout=86399", "timeout=-1"),
            ("state_orig=ESTABLISHED", "state_orig=SOMEHOW"),
            ("wscale_orig=9", "wscale_orig=15"),
            ("flags_reply=WINDOW_SCALE)", "flags_reply=WINDOW_SCALE"),
            (",protoinfo=(", "),protoinfo=("),
        ] {
            let line = TCP.replace(from, to);
            assert_eq!(connections(&line).unwrap_err(), bad("dpctl/dump-conntrack", &line), "{to}");
        }
    }
}
