//! What FTP's control connection says of data connections (RFC 959 PORT and 227, RFC 2428 EPRT and 229).
//!
//! Pure text: [`find`] reads one segment's payload. An announcement that two segments share is not seen, as with
//! every tracker that does not put streams together; clients and servers send it in one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Longest reply line that is looked at.
const MAX_LINE: usize = 256;

/// A data connection to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The server will listen; else the client does.
    pub passive: bool,
    /// The address that is said, and where in the payload; an extended reply says none.
    pub address: Option<(IpAddr, Range<usize>)>,
    /// The port that will listen.
    pub port: u16,
}

impl Announcement {
    /// How `addr` is said in the place of the address.
    pub fn text(addr: IpAddr, extended: bool) -> String {
        match addr {
            IpAddr::V4(a) if !extended => a.to_string().replace('.', ","),
            a => a.to_string(),
        }
    }
}

/// What a payload announces, `reply` telling whether the server speaks. Commands in any case.
pub fn find(payload: &[u8], reply: bool) -> Option<Announcement> {
    read(payload, reply).filter(|a| a.port != 0)
}

/// As [`find`], port 0 included.
fn read(payload: &[u8], reply: bool) -> Option<Announcement> {
    let line = &payload[..payload.len().min(MAX_LINE)];
    let end = line.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
    let line = std::str::from_utf8(&line[..end]).ok()?;
    let head = line.get(..4)?;
    if reply {
        return match head {
            "227 " => {
                let at = 4 + line[4..].find(|c: char| c.is_ascii_digit())?;
                six_numbers(line, at, true)
            }
            "229 " => {
                let at = line.find('(')? + 1;
                let [(a, _), (b, _), (port, _)] = delimited(line, at)?;
                (a.is_empty() && b.is_empty()).then_some(())?;
                Some(Announcement { passive: true, address: None, port: listening(port)? })
            }
            _ => None,
        };
    }
    let rest = line.get(5..)?;
    let at = 5 + (rest.len() - rest.trim_start_matches(' ').len());
    if line.get(..5)?.eq_ignore_ascii_case("PORT ") {
        return six_numbers(line, at, false);
    }
    if !line.get(..5)?.eq_ignore_ascii_case("EPRT ") {
        return None;
    }
    let [(family, _), (addr, range), (port, _)] = delimited(line, at)?;
    let addr: IpAddr = match family {
        "1" => addr.parse::<Ipv4Addr>().ok()?.into(),
        "2" => addr.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    Some(Announcement { passive: false, address: Some((addr, range)), port: listening(port)? })
}

/// Whether a payload's first line is a command or reply that announces a connection, of the kind that its IP version has, and yet
/// [`find`] can't read it.
pub fn is_garbled(payload: &[u8], reply: bool, v6: bool) -> bool {
    let line = &payload[..payload.len().min(MAX_LINE)];
    let Some(end) = line.iter().position(|b| matches!(b, b'\r' | b'\n')) else { return false };
    let head: &[u8] = match (reply, v6) {
        (false, false) => b"PORT ",
        (false, true) => b"EPRT ",
        (true, false) => b"227 ",
        (true, true) => b"229 ",
    };
    line[..end].get(..head.len()).is_some_and(|h| h.eq_ignore_ascii_case(head))
        && read(payload, reply).is_none()
}

fn listening(port: &str) -> Option<u16> {
    port.parse().ok()
}

/// `h1,h2,h3,h4,p1,p2` from `at` on.
fn six_numbers(line: &str, at: usize, passive: bool) -> Option<Announcement> {
    let mut numbers = [0u8; 6];
    let mut address_end = at;
    let mut from = at;
    for (i, number) in numbers.iter_mut().enumerate() {
        let rest = line.get(from..)?;
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        *number = rest[..len].parse().ok()?;
        from += len;
        if i == 3 {
            address_end = from;
        }
        if i < 5 {
            rest.as_bytes().get(len).filter(|b| **b == b',')?;
            from += 1;
        }
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    let address = Some((IpAddr::from([a, b, c, d]), at..address_end));
    Some(Announcement { passive, address, port })
}

/// `|x|y|z|` from `at` on, whatever character the bar is.
fn delimited(line: &str, at: usize) -> Option<[(&str, Range<usize>); 3]> {
    let text = line.get(at..)?;
    let bar = text.chars().next().filter(|c| matches!(c, '!'..='~') && !c.is_ascii_alphanumeric())?;
    let mut from = at + 1;
    let mut field = || {
        let len = line.get(from..)?.find(bar)?;
        let range = from..from + len;
        from += len + 1;
        Some((&line[range.clone()], range))
    };
    Some([field()?, field()?, field()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(a: [u8; 4], range: Range<usize>) -> Option<(IpAddr, Range<usize>)> {
        Some((a.into(), range))
    }

    #[test]
    fn commands_and_replies() {
        let port = Announcement { passive: false, address: v4([10, 1, 1, 1], 5..13), port: 256 + 2 };
        assert_eq!(find(b"PORT 10,1,1,1,1,2\r\n", false), Some(port.clone()));
        assert_eq!(find(b"port 10,1,1,1,1,2\r\n", false), Some(port));
        let said = b"227 Entering Passive Mode (10,1,1,2,4,0).\r\n";
        let pasv = Announcement { passive: true, address: v4([10, 1, 1, 2], 27..35), port: 1024 };
        assert_eq!(find(said, true), Some(pasv));
        let said = b"229 Entering Extended Passive Mode (|||6446|)\r\n";
        assert_eq!(find(said, true), Some(Announcement { passive: true, address: None, port: 6446 }));
        let eprt =
            Announcement { passive: false, address: Some(("fd00::1".parse().unwrap(), 8..15)), port: 5282 };
        assert_eq!(find(b"EPRT |2|fd00::1|5282|\r\n", false), Some(eprt));
    }

    #[test]
    fn what_says_nothing() {
        let no: [(&[u8], bool); 9] = [
            (b"PORT 10,1,1,1,1,2\r\n", true),
            (b"227 Entering Passive Mode (10,1,1,2,4,0).\r\n", false),
            (b"PORT 10,1,1,1,1\r\n", false),
            (b"PORT 10,1,1,256,1,2\r\n", false),
            (b"PORT 10,1,1,1,0,0\r\n", false),
            (b"PORT 10,1,1,1,1,2", false),
            (b"EPRT |1|fd00::1|5282|\r\n", false),
            (b"229 Entering (||x|6446|)\r\n", true),
            (b"229 \xff(|||6446|)\r\n", true),
        ];
        for (payload, reply) in no {
            assert_eq!(find(payload, reply), None, "{}", String::from_utf8_lossy(payload));
        }
        assert!(is_garbled(b"PORT 10,1,1,1,1\r\n", false, false) && is_garbled(b"227 no\r\n", true, false));
        assert!(!is_garbled(b"PORT 10,1,1,1,1", false, false) && !is_garbled(b"227 no\r\n", true, true));
    }

    #[test]
    fn addresses_as_they_are_said() {
        assert_eq!(Announcement::text([10, 1, 1, 9].into(), false), "10,1,1,9");
        assert_eq!(Announcement::text([10, 1, 1, 9].into(), true), "10.1.1.9");
        assert_eq!(Announcement::text("fd00:0::9".parse().unwrap(), true), "fd00::9");
    }
}
